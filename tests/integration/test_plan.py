"""A batch is cut into any number of jobs, whatever became of those who began to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Request
from lowtide.protocol import Stage, job_id, job_prefix, keys
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import HeldBatch, Ordinals, Superseded

MODEL = "gemini-3.5-flash"
MANY = 40_000
"""As one script's arguments, more than the million that Redis takes."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("plan")) as stack:
        yield stack


@pytest.fixture
def runtime(stack: Stack) -> Runtime:
    stack.empty_redis()
    return Runtime(stack.worker_settings())


def begun(stack: Stack, runtime: Runtime, count: int) -> HeldBatch:
    """A batch of so many requests whose planning has begun."""
    batch = stack.queue().submit([Request(key=f"{n}", contents="x") for n in range(count)], model=MODEL)
    return again(runtime, batch.id)


def again(runtime: Runtime, batch_id: str) -> HeldBatch:
    member = keys.batch_member(batch_id)
    token = int(runtime.redis.hget(keys.entity(member), "token") or 0)
    held = runtime.clock.begin(Stage.SUBMIT, member, token)
    assert isinstance(held, HeldBatch), held
    return held


def jobs(runtime: Runtime, batch: HeldBatch) -> list[Any]:
    """First and last ordinal of each job that there is a trace of, by number."""
    prefix = job_prefix(batch.batch_id)
    names = {key.decode().rpartition("-")[2] for key in runtime.redis.scan_iter(f"lowtide:*:{prefix}*")}
    found = []
    for number in sorted(map(int, names)):
        record = runtime.ledger.job(f"{prefix}{number}")
        assert record is not None
        bitmap = runtime.redis.get(keys.carried(f"{prefix}{number}"))
        found.append((record.first, record.last, record.sparse, record.stage, bitmap))
    return found


def test_more_jobs_than_redis_takes_arguments_are_planned_with_a_short_lease(tmp_path: Path) -> None:
    small = {"LOWTIDE_MAX_REQUESTS_PER_JOB": "1", "LOWTIDE_LEASE_SECONDS": "1", "LOWTIDE_MAX_ACTIVE_JOBS": "1"}
    with Stack(tmp_path) as stack:
        requests = (Request(key=f"{n}", contents="x") for n in range(MANY))
        batch = stack.queue().submit(requests, model=MODEL)
        worker = stack.worker("-P", "threads", "-c", "2", **small)

        planned = wait_until(lambda: int(stack.redis.hget(keys.batch(batch.id), "jobs") or 0), what="it is planned")

        assert planned == MANY
        last = stack.redis.hgetall(keys.job(job_id(batch.id, MANY)))
        assert (last[b"first"], last[b"stage"]) == (b"%d" % (MANY - 1), str(Stage.CREATE).encode())
        assert stack.redis.zcard(keys.clock(Stage.CREATE.queue)) >= MANY
        worker.kill()


def test_what_a_run_with_other_settings_left_is_gone(stack: Stack, runtime: Runtime) -> None:
    dead = begun(stack, runtime, 9)
    runtime.ledger.draft(dead, 1, [Ordinals(first=n, last=n + 2, bitmap=b"\x80") for n in range(8)])
    runtime.redis.hset(keys.entity(dead.member), mapping={"stage": Stage.SUBMIT, "token": dead.token + 1})

    second = again(runtime, dead.batch_id)
    runtime.ledger.draft(second, 1, [Ordinals(first=0, last=5)])
    runtime.ledger.draft(second, 2, [Ordinals(first=5, last=9)])
    runtime.ledger.plan(second, 2)

    assert jobs(runtime, second) == [(0, 5, False, Stage.CREATE, None), (5, 9, False, Stage.CREATE, None)]
    assert not runtime.redis.hexists(keys.entity(second.member), "drafted")


def test_one_who_lost_the_batch_changes_no_job_of_it(stack: Stack, runtime: Runtime) -> None:
    late = begun(stack, runtime, 4)
    runtime.redis.hset(keys.entity(late.member), mapping={"stage": Stage.SUBMIT, "token": late.token + 1})
    second = again(runtime, late.batch_id)
    runtime.ledger.draft(second, 1, [Ordinals(first=0, last=4)])
    runtime.ledger.plan(second, 1)
    planned = jobs(runtime, second)

    with pytest.raises(Superseded):
        runtime.ledger.draft(late, 1, [Ordinals(first=0, last=4, bitmap=b"\x90")])
    with pytest.raises(Superseded):
        runtime.ledger.plan(late, 1)

    assert jobs(runtime, second) == planned


def test_jobs_that_are_only_drafted_are_nothing_to_the_sweep(stack: Stack, runtime: Runtime) -> None:
    batch = begun(stack, runtime, 4)
    runtime.ledger.draft(batch, 1, [Ordinals(first=0, last=4)])

    assert runtime.oddities.put_back_on_clock(lambda: None) == 0
