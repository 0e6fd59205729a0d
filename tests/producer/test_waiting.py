"""Waiting for a batch costs one read of its hash, however many jobs it has."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr
from tests.producer.points import MODEL, requests
from tests.stack import Stack
from tests.tap import Tap

from lowtide import AsyncBatch, BatchQueue, WaitTimeout

JOBS = 5000


@pytest.fixture
def batch_and_queue(stack: Stack, tmp_path: Path) -> tuple[str, BatchQueue]:
    """A batch of many jobs, in a database that no worker looks at."""
    database = SecretStr(stack.redis_server.url.removesuffix("/0") + "/1")
    redis.Redis.from_url(database.get_secret_value()).flushdb()
    queue = BatchQueue(stack.settings(redis_url=database, spool_url=str(tmp_path)))
    batch = queue.submit(requests("waiting"), model=MODEL)
    queue._store.redis.hset(f"lowtide:batch:{batch.id}", "jobs", JOBS)
    return batch.id, queue


@pytest.mark.parametrize("with_await", [False, True])
def test_waiting_does_not_read_the_jobs(
    stack: Stack, batch_and_queue: tuple[str, BatchQueue], with_await: bool
) -> None:
    batch_id, queue = batch_and_queue
    seen: list[str] = []
    batch = queue.get(batch_id)

    def wait() -> None:
        if with_await:
            asyncio.run(AsyncBatch(batch).wait(0.3))
        else:
            batch.wait(0.3)

    with Tap(stack.redis_server, seen.append), pytest.raises(WaitTimeout, match=batch_id):
        wait()

    assert sum(f"lowtide:batch:{batch_id}" in line for line in seen) > 1
    assert not [line for line in seen if f"lowtide:job:{batch_id}" in line]


def test_a_summary_is_a_status_without_jobs(stack: Stack) -> None:
    batch = stack.queue().submit(requests("summary"), model=MODEL)
    status = batch.wait(timeout=180)

    summary = batch.summary()

    assert len(status.jobs) == 1
    assert summary.jobs == []
    assert (summary.id, summary.state, summary.succeeded) == (status.id, status.state, status.succeeded)
