"""Words that come too early: of a handler for results not stored yet, of a user while a worker still decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.records import a_batch, a_segment, hash_of, held_segment
from tests.stack import Stack

from lowtide import DeadLetters
from lowtide.protocol import Queue, Stage, keys
from lowtide.store import DeliveryClient, Store
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.delete import delete
from lowtide_worker.state import HeldBatch, Move, Superseded

BATCH = "b0words"
JOB = f"{BATCH}-1"
MEMBER = keys.segment_member(JOB, 0)
SEGMENT = {"v": "2", "batch_id": BATCH, "job_id": JOB, "number": "0", "stage": Stage.DELIVER, "token": "5", "busy": "0"}
DELIVERIES = keys.clock(Queue.RESULTS)

WORDS: dict[str, Callable[[DeliveryClient], None]] = {
    "taken": lambda delivery: delivery.taken(f"{JOB}:0"),
    "handed back": lambda delivery: delivery.hand_back(f"{JOB}:0", only=None, attempt=1, error="x"),
}


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("words")) as stack:
        yield stack


@pytest.fixture
def runtime(own_stack: Stack) -> Runtime:
    own_stack.empty_redis()
    return Runtime(own_stack.worker_settings())


def record(runtime: Runtime, batch: dict[str, Any], segment: dict[str, Any]) -> None:
    runtime.redis.hset(keys.batch(BATCH), mapping=dict[Any, Any](hash_of(a_batch(BATCH)) | batch))
    runtime.redis.hset(keys.entity(MEMBER), mapping=dict[Any, Any](SEGMENT | segment))
    runtime.redis.zadd(DELIVERIES, {MEMBER: 1.0})


def test_a_handler_that_failed_is_in_the_status_with_its_attempt_and_the_next_time(
    own_stack: Stack, runtime: Runtime
) -> None:
    record(runtime, {"undelivered": "1", "on_result": "shop.save@shop"}, {"stored": "1", "most_tries": "8"})

    DeliveryClient(own_stack.settings()).hand_back(f"{JOB}:0", only=None, attempt=2, error="ValueError: no column")

    problem = own_stack.queue().get(BATCH).status().problems[-1]
    assert problem.startswith("1 segment undelivered: segment 0 of job 1: attempt 2 of 8 failed, the next at ")
    assert problem.endswith(" UTC: ValueError: no column")
    late, segment = (held_segment(a_segment(JOB, 0), a_batch(BATCH), token=token) for token in (5, 6))
    runtime.deliveries.forget_problem(late)
    assert own_stack.queue().get(BATCH).status().problems[-1] == problem, "the handler was faster than this worker"
    # The worker has given it to the handler again.
    runtime.deliveries.forget_problem(segment)
    assert not any("attempt" in problem for problem in own_stack.queue().get(BATCH).status().problems)
    runtime.deliveries.note_failure(segment, "HTTP 500", attempt=8, pause=1.0)
    problem = own_stack.queue().get(BATCH).status().problems[-1]
    assert "attempt 8 of 8 failed, the last one: the segment is parked at" in problem
    DeliveryClient(own_stack.settings()).taken(f"{JOB}:0")
    assert runtime.redis.hmget(keys.batch(BATCH), "delivery_problem", "delivery_failed") == [None, None]


@pytest.mark.parametrize("word", WORDS)
def test_a_handlers_word_for_results_that_are_not_stored_yet_changes_nothing(
    own_stack: Stack, runtime: Runtime, word: str
) -> None:
    record(runtime, {"undelivered": "0"}, {})
    batch, segment = (runtime.redis.hgetall(key) for key in (keys.batch(BATCH), keys.entity(MEMBER)))

    WORDS[word](DeliveryClient(own_stack.settings()))

    assert runtime.redis.hgetall(keys.entity(MEMBER)) == segment
    assert runtime.redis.hgetall(keys.batch(BATCH)) == batch
    assert runtime.redis.zscore(DELIVERIES, MEMBER) == 1.0


@pytest.mark.parametrize("word", WORDS)
def test_a_handlers_word_for_stored_results_is_heard(own_stack: Stack, runtime: Runtime, word: str) -> None:
    record(runtime, {"undelivered": "1"}, {"stored": "1"})

    WORDS[word](DeliveryClient(own_stack.settings()))

    back = word == "handed back"
    assert runtime.redis.hget(keys.batch(BATCH), "undelivered") == (b"1" if back else b"0")
    assert runtime.redis.hget(keys.entity(MEMBER), "tries") == (b"1" if back else None)


def test_the_starts_of_an_attempt_are_counted_and_those_of_an_earlier_one_are_not(
    own_stack: Stack, runtime: Runtime
) -> None:
    delivery = DeliveryClient(own_stack.settings())
    assert delivery.started(f"{JOB}:0", 1) == 0
    assert not runtime.redis.exists(keys.entity(MEMBER))
    record(runtime, {"undelivered": "1"}, {"stored": "1"})

    assert [delivery.started(f"{JOB}:0", attempt) for attempt in (1, 1, 2, 1, 2)] == [1, 2, 1, 0, 2]


def test_a_parked_segment_that_is_delivered_again_has_its_starts_counted_from_one(
    own_stack: Stack, runtime: Runtime
) -> None:
    record(runtime, {"parked": "1"}, {"stored": "1", "stage": "", "begun_attempt": "8", "begun": "4"})
    runtime.redis.zadd(keys.PARKED, {MEMBER: 1.0})

    DeadLetters(own_stack.settings()).redeliver(f"{JOB}:0")

    assert DeliveryClient(own_stack.settings()).started(f"{JOB}:0", 1) == 1


def test_a_batch_is_deleted_at_once_though_a_worker_has_just_decided_to_keep_it(
    own_stack: Stack, runtime: Runtime
) -> None:
    member, clock = keys.batch_member(BATCH), keys.clock(Queue.JOBS)
    fields = {"state": "completed", "stage": Stage.DELETE, "token": "5", "busy": "0", "undelivered": "1"}
    record(runtime, {**fields, "finished": str(time.time())}, {})
    runtime.redis.zadd(clock, {member: 1.0})
    [dispatch] = runtime.clock.claim(Queue.JOBS)
    held = runtime.clock.begin(Stage.DELETE, member, dispatch.token)
    assert isinstance(held, HeldBatch)
    kept = delete(runtime, held)
    assert isinstance(kept, Move)

    Store(own_stack.settings()).delete(BATCH)
    with pytest.raises(Superseded):
        runtime.clock.advance(held, kept)

    [dispatch] = runtime.clock.claim(Queue.JOBS)
    assert (dispatch.member, dispatch.stage) == (member, Stage.DELETE)
