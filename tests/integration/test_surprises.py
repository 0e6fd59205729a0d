"""A failure that no class covers: it costs the job that has it, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import BatchState, Request
from lowtide.protocol import BatchFiles, keys
from lowtide.states import JobState

MODEL = "gemini-3.5-flash"
# Raises in the HTTP library, before anything is sent, what is none of its errors for failed calls.
NO_MODEL = "no\nmodel"


FAST: dict[str, Any] = {
    "LOWTIDE_MAX_ACTIVE_JOBS": "1",
    "LOWTIDE_CREATE_SETTLE_SECONDS": "0.1",
    "LOWTIDE_RETRY_FIRST_SECONDS": "0.05",
    "LOWTIDE_RETRY_MAX_SECONDS": "0.1",
}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, **FAST) as stack:
        yield stack


def test_a_job_whose_creation_fails_for_ever_is_failed_and_gives_its_slot_back(stack: Stack) -> None:
    queue = stack.queue()
    odd = queue.submit([Request(key=key, contents="x") for key in "abc"], model=MODEL, priority=10)
    stack.redis.hset(keys.batch(odd.id), "model", NO_MODEL)
    good = queue.submit([Request(key="a", contents="x")], model=MODEL)

    worker = stack.worker("-P", "threads", "-c", "2")

    assert good.wait(timeout=180).succeeded == 1, "the one slot is never given back"
    status = odd.wait(timeout=180)
    assert (status.state, status.failed) == (BatchState.FAILED, 3)
    assert status.jobs[0].state is JobState.FAILED
    errors = [result.error for result in odd.results()]
    assert [error.reason for error in errors if error] == ["INTERNAL"] * 3
    assert all("InvalidURL" in error.message for error in errors if error)
    wait_until(lambda: not stack.redis.zcard(keys.live("gemini")), what="no slot is held")
    assert worker.alive


def test_a_job_that_cannot_be_prepared_does_not_hold_a_slot_while_it_waits(stack: Stack) -> None:
    queue = stack.queue()
    odd = queue.submit([Request(key="a", contents="x")], model=MODEL, priority=10)
    requests = stack.directory / "spool" / BatchFiles(odd.id).index
    requests.rename(requests.with_suffix(".away"))
    good = queue.submit([Request(key="a", contents="x")], model=MODEL)

    stack.worker("-P", "threads", "-c", "2")

    assert good.wait(timeout=180).succeeded == 1, "the one slot is held by a job that waits"
    assert not odd.status().finished
    requests.with_suffix(".away").rename(requests)
    assert odd.wait(timeout=180).succeeded == 1
