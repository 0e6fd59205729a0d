"""A create over a slow line is paid once: it has the time it needs, and one that is given up does not arrive later."""

from __future__ import annotations

from pathlib import Path

from tests.line import Line
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Request

MODEL = "gemini-3.5-flash"
HASTE = {"LOWTIDE_LEASE_SECONDS": "1", "LOWTIDE_PROVIDER_TIMEOUT_SECONDS": "1", "LOWTIDE_CREATE_SETTLE_SECONDS": "0.5"}


def creates(stack: Stack) -> int:
    return stack.emulator.stats().calls.get("batches.create", 0)


def test_an_inline_job_that_takes_longer_than_the_timeout_is_created_once(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack, Line(stack.emulator.url, 200_000) as line:
        worker = stack.worker(
            "-P",
            "threads",
            "-c",
            "4",
            **HASTE,
            GOOGLE_GEMINI_BASE_URL=line.url,
            LOWTIDE_PROVIDER_SLOWEST_BYTES_PER_SECOND="50000",
        )

        batch = stack.queue().submit([Request(key="long", contents="x" * 800_000)], model=MODEL, mode="inline")

        assert batch.wait(timeout=180).succeeded == 1
        assert "creating it again" not in worker.text
        assert creates(stack) == 1
        assert len(stack.emulator.jobs()) == 1


def test_a_create_that_was_given_up_is_never_completed(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack, Line(stack.emulator.url, 200_000) as line:
        worker = stack.worker(
            "-P",
            "threads",
            "-c",
            "4",
            **HASTE,
            GOOGLE_GEMINI_BASE_URL=line.url,
            LOWTIDE_PROVIDER_SLOWEST_BYTES_PER_SECOND="1e9",
        )

        batch = stack.queue().submit([Request(key="long", contents="x" * 500_000)], model=MODEL, mode="inline")
        wait_until(lambda: worker.text.count("the outcome of its creation is unknown") > 1, what="it is given up twice")
        line.bytes_per_second = 1e9

        assert batch.wait(timeout=180).succeeded == 1
        assert creates(stack) == 1
        assert len(stack.emulator.jobs()) == 1
