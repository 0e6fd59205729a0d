"""A slot or place that becomes free while somebody is just finding none must wake it all the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.stack import Stack

from lowtide import Request
from lowtide.protocol import Queue, Stage, keys
from lowtide.store import DeliveryClient
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Held, Move

BATCH = "b0waking"
HOUR = 3600.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("waking")) as stack:
        yield stack


@pytest.fixture
def runtime(stack: Stack) -> Runtime:
    stack.empty_redis()
    return Runtime(stack.worker_settings(max_active_jobs=1, handler_window=1))


def held(runtime: Runtime, member: str, stage: Stage, **fields: str) -> Held:
    """Something a worker has just begun to work on."""
    batch: dict[Any, Any] = {
        "id": BATCH,
        "provider": "gemini",
        "created": "1",
        "priority": "0",
        "on_result": "shop.save",
    }
    runtime.redis.hset(keys.batch(BATCH), mapping=batch)
    known: dict[Any, Any] = {"v": "1", "token": "1", "stage": str(stage), "busy": "1", "batch_id": BATCH, **fields}
    runtime.redis.hset(keys.entity(member), mapping=known)
    runtime.redis.zadd(keys.clock(stage.queue), {member: time.time() + 60})
    return Held(member, stage, 1, known, batch, time.time())


def due_in(runtime: Runtime, queue: Queue, member: str) -> float:
    score = runtime.redis.zscore(keys.clock(queue), member)
    assert score is not None
    return score - time.time()


def test_a_job_that_just_found_no_slot_is_woken_by_one_that_ends(runtime: Runtime) -> None:
    first = held(runtime, keys.job_member(f"{BATCH}-1"), Stage.CREATE, id=f"{BATCH}-1")
    second = held(runtime, keys.job_member(f"{BATCH}-2"), Stage.CREATE, id=f"{BATCH}-2")
    assert runtime.admission.admit(first)
    assert not runtime.admission.admit(second)

    runtime.admission.release(first)
    runtime.clock.advance(second, Move(stage=Stage.CREATE, after=HOUR))

    assert due_in(runtime, Queue.JOBS, second.member) < 1


def test_a_job_that_just_found_no_slot_is_woken_by_the_cancel_of_its_batch(stack: Stack, runtime: Runtime) -> None:
    batch = stack.queue().submit([Request(key="a", contents="x")], model="gemini-2.5-flash")
    runtime.redis.hset(keys.batch(batch.id), mapping={"jobs": 1, "state": "running"})
    job = f"{batch.id}-1"
    waiting = held(runtime, keys.job_member(job), Stage.CREATE, id=job)

    batch.cancel()
    runtime.clock.advance(waiting, Move(stage=Stage.CREATE, after=HOUR))

    assert due_in(runtime, Queue.JOBS, waiting.member) < 1


def test_a_delivery_that_just_found_no_place_is_woken_when_the_handler_takes_another(
    stack: Stack, runtime: Runtime
) -> None:
    first = held(runtime, keys.segment_member(f"{BATCH}-1", 0), Stage.DELIVER)
    second = held(runtime, keys.segment_member(f"{BATCH}-1", 1), Stage.DELIVER)
    assert runtime.deliveries.offer(first, patience=HOUR)
    assert not runtime.deliveries.offer(second, patience=HOUR)

    DeliveryClient(stack.settings()).taken(f"{BATCH}-1:0")
    runtime.clock.advance(second, Move(stage=Stage.DELIVER, after=HOUR))

    assert due_in(runtime, Queue.RESULTS, second.member) < 1


def test_a_place_whose_delivery_was_lost_is_free_again_after_a_while(runtime: Runtime) -> None:
    first = held(runtime, keys.segment_member(f"{BATCH}-1", 0), Stage.DELIVER)
    second = held(runtime, keys.segment_member(f"{BATCH}-1", 1), Stage.DELIVER)
    assert runtime.deliveries.offer(first, patience=0)
    assert runtime.deliveries.offer(second, patience=HOUR)
