"""The probes of the hooks application, and the trace that an event of no job leaves."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.request import ProxyHandler, build_opener

import pytest
from tests.hooks import SECRET, event, new_id, post, served, signed_headers
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import hooks
from lowtide.protocol import keys
from lowtide_worker.metrics import catalogue, read_snapshot

_open = build_opener(ProxyHandler({})).open


class Served(NamedTuple):
    url: str
    stack: Stack

    def probe(self, path: str) -> tuple[int, str]:
        try:
            with _open(self.url + path, timeout=180) as reply:
                return reply.status, reply.read().decode()
        except OSError as error:
            return getattr(error, "code", 0), getattr(error, "read", bytes)().decode()

    def not_ready(self) -> tuple[int, str] | None:
        answer = self.probe("/readyz")
        return answer if answer[0] == 503 else None


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with (
        Stack(tmp_path_factory.mktemp("probes")) as stack,
        served(hooks.app(stack.settings(hooks_secrets=[SECRET]))) as url,
    ):
        yield Served(url, stack)


def test_the_application_is_live_without_redis_and_ready_only_with_it(hooked: Served) -> None:
    wait_until(lambda: hooked.probe("/readyz") == (200, "ok\n"))
    frozen, body = hooked.stack.redis_server.pid, event()
    assert frozen
    with ThreadPoolExecutor(40) as senders:
        os.kill(frozen, signal.SIGSTOP)
        try:
            # More events than the application has threads wait for Redis meanwhile.
            late = [senders.submit(post, f"{hooked.url}/gemini", body, signed_headers(body)) for _ in range(40)]
            status, text = wait_until(hooked.not_ready)
            live = hooked.probe("/livez")
        finally:
            os.kill(frozen, signal.SIGCONT)
        assert {reply.result().status for reply in late} <= {204, 503}

    assert (status, live) == (503, (200, "ok\n"))
    assert text == "Redis does not serve: TimeoutError\n"
    wait_until(lambda: hooked.probe("/readyz")[0] == 200)
    assert hooked.probe("/metrics")[0] == 404


def test_an_event_of_no_job_is_logged_and_counted_once(hooked: Served, caplog: pytest.LogCaptureFixture) -> None:
    client, identity = hooked.stack.redis, new_id()
    before = int(client.hget(keys.COUNTERS, "hints|other") or 0)
    ping = event("webhook.ping", id="1")
    odd = event("line one\nline two" * 500, id="1")

    with caplog.at_level(logging.INFO, "lowtide.hooks"):
        for body, known in ((ping, identity), (ping, identity), (odd, new_id())):
            assert post(f"{hooked.url}/gemini", body, signed_headers(body, identity=known)).status == 204

    lines = [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "hooks.received"]
    assert len(lines) == 2
    assert "webhook.ping" in lines[0]
    assert "\n" not in lines[1]
    assert len(lines[1]) < 200
    hints = read_snapshot(client, hooked.stack.worker_settings()).values[catalogue.HINTS]
    assert hints["other",] == before + 2
