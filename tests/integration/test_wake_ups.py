"""A slot or place that becomes free while somebody is just finding none must wake it all the same."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.records import a_batch, a_job, a_segment, hash_of, held_job, held_segment
from tests.stack import Stack

from lowtide import Request
from lowtide.protocol import Queue, Stage, keys
from lowtide.store import DeliveryClient
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import HeldJob, HeldSegment, JobTokens, Move

BATCH = "b0waking"
RECORD = a_batch(BATCH, on_result="shop.save")
HOUR = 3600.0
ONE = JobTokens(all=1, least=1)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("waking")) as stack:
        yield stack


@pytest.fixture
def runtime(stack: Stack) -> Runtime:
    stack.empty_redis()
    return Runtime(stack.worker_settings(max_active_jobs=1, handler_window=1))


def creating(runtime: Runtime, job: str) -> HeldJob:
    """A job that a worker has just begun to create."""
    held = held_job(a_job(job, token=1, stage=Stage.CREATE, busy=True), RECORD, Stage.CREATE)
    _begun(runtime, held)
    return held


def delivering(runtime: Runtime, number: int) -> HeldSegment:
    """A segment that a worker has just begun to deliver."""
    segment = a_segment(f"{BATCH}-1", number, token=1, stage=Stage.DELIVER, busy=True)
    held = held_segment(segment, RECORD)
    _begun(runtime, held)
    return held


def _begun(runtime: Runtime, held: HeldJob | HeldSegment) -> None:
    runtime.redis.hset(keys.batch(BATCH), mapping=hash_of(RECORD))
    runtime.redis.hset(keys.entity(held.member), mapping=hash_of(held.record))
    runtime.redis.zadd(keys.clock(held.stage.queue), {held.member: time.time() + 60})


def due_in(runtime: Runtime, queue: Queue, member: str) -> float:
    score = runtime.redis.zscore(keys.clock(queue), member)
    assert score is not None
    return score - time.time()


def test_a_job_that_just_found_no_slot_is_woken_by_one_that_ends(runtime: Runtime) -> None:
    first = creating(runtime, f"{BATCH}-1")
    second = creating(runtime, f"{BATCH}-2")
    assert runtime.admission.admit(first, ONE).tokens
    assert not runtime.admission.admit(second, ONE).tokens

    runtime.admission.release(first)
    runtime.clock.advance(second, Move(stage=Stage.CREATE, after=HOUR))

    assert due_in(runtime, Queue.JOBS, second.member) < 1


def test_a_job_that_just_found_no_slot_is_woken_by_the_cancel_of_its_batch(stack: Stack, runtime: Runtime) -> None:
    batch = stack.queue().submit([Request(key="a", contents="x")], model="gemini-3.5-flash")
    runtime.redis.hset(keys.batch(batch.id), mapping={"jobs": 1, "state": "running"})
    job = f"{batch.id}-1"
    waiting = creating(runtime, job)

    batch.cancel()
    runtime.clock.advance(waiting, Move(stage=Stage.CREATE, after=HOUR))

    assert due_in(runtime, Queue.JOBS, waiting.member) < 1


def test_a_delivery_that_just_found_no_place_is_woken_when_the_handler_takes_another(
    stack: Stack, runtime: Runtime
) -> None:
    first = delivering(runtime, 0)
    second = delivering(runtime, 1)
    assert runtime.deliveries.offer(first, patience=HOUR)
    assert not runtime.deliveries.offer(second, patience=HOUR)

    DeliveryClient(stack.settings()).taken(f"{BATCH}-1:0")
    runtime.clock.advance(second, Move(stage=Stage.DELIVER, after=HOUR))

    assert due_in(runtime, Queue.RESULTS, second.member) < 1


def test_a_place_whose_delivery_was_lost_is_free_again_after_a_while(runtime: Runtime) -> None:
    first = delivering(runtime, 0)
    second = delivering(runtime, 1)
    assert runtime.deliveries.offer(first, patience=0)
    assert runtime.deliveries.offer(second, patience=HOUR)


def test_jobs_that_wait_for_a_budget_are_woken_by_the_cancel_of_a_batch_that_may_have_it(
    stack: Stack, runtime: Runtime
) -> None:
    queue = stack.queue(share_jobs=True, linger_seconds=HOUR)
    one, _ = (queue.submit([Request(key="k", contents="x")], model=RECORD.model) for _ in range(2))
    bundle = str(one.status().bundle)
    runtime.redis.hset(keys.batch(bundle), "jobs", 2)
    jobs = [a_job(f"{bundle}-{number}", awaits=awaits) for number, awaits in ((1, "budget"), (2, "slot"))]
    for job in jobs:
        runtime.redis.hset(keys.job(job.id), mapping=hash_of(job))
        runtime.redis.zadd(keys.clock(Queue.JOBS), {keys.job_member(job.id): time.time() + HOUR})

    one.cancel()

    assert [due_in(runtime, Queue.JOBS, keys.job_member(job.id)) < 1 for job in jobs] == [True, False]
