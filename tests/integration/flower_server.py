"""Flower with the pages of Lowtide as a real process, and batches for its pages."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from tests import fork_server
from tests.integration.blurbs import MODEL
from tests.ports import quiet_port
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch, Request
from lowtide_cli.local import end

LOGIN = ("keeper", "of-the-tide")
MARKUP = "<script>alert(1)</script>"
PAYLOAD = "a request that no page shows"


@contextmanager
def flower(stack: Stack, *options: str, **env: str) -> Iterator[str]:
    """Runs Flower; gives its address."""
    port, log = quiet_port(), stack.directory / "flower.log"
    log.touch()
    command = ["-A", "lowtide_worker", "flower", "--address=127.0.0.1", f"--port={port}", *options]
    process = fork_server.shared("celery").start(
        command, env=stack.env | env, cwd=stack.directory, streams=(os.devnull, log, log)
    )

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code < 500
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, what="Flower answers")
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


@contextmanager
def flower_with_login(stack: Stack) -> Iterator[str]:
    """Runs Flower with a login and a budget; gives its address."""
    budgets = json.dumps({f"team=<b>{MARKUP}": {"day": 50, "month": 800.5}})
    with flower(stack, FLOWER_BASIC_AUTH=":".join(LOGIN), LOWTIDE_BUDGETS=budgets) as url:
        yield url


def submit(stack: Stack, on_result: str | None = None, **labels: str) -> Batch:
    request = Request(key="one", contents=PAYLOAD)
    return stack.queue().submit([request], model=MODEL, labels=labels, on_result=on_result, share=False)


def finished(stack: Stack, **labels: str) -> Batch:
    batch = submit(stack, **labels)
    batch.wait(60)
    return batch
