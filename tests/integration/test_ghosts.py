"""A deleted batch stays deleted: whatever comes late for it, no key of it comes back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from tests.records import a_batch, a_job, a_segment, hash_of, held_batch, held_job, held_segment
from tests.stack import Stack

from lowtide import BatchNotFound, DeadLetterNotFound, DeadLetters
from lowtide.protocol import Queue, Stage, keys
from lowtide.states import BatchState
from lowtide.store import DeliveryClient, Store
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import JobMove, JobTokens, Ordinals, Retry, SegmentMove, SegmentRows, Superseded, Tally

BATCH = "b0ghost"
JOB = f"{BATCH}-1"
HANDLER = "shop.take"
BATCH_RECORD = a_batch(
    BATCH,
    state=BatchState.COMPLETED,
    stage=Stage.DELETE,
    token=5,
    busy=True,
    jobs=1,
    total=1,
    on_result=HANDLER,
)
JOB_RECORD = a_job(JOB, stage=Stage.SETTLE, token=5)
SEGMENT_RECORD = a_segment(JOB, 0, stage=Stage.DELIVER, token=5, end=1)


class World(NamedTuple):
    runtime: Runtime
    stack: Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("ghosts")) as stack:
        yield stack


BATCH_HELD = held_batch(BATCH_RECORD, Stage.DELETE, 5)
JOB_HELD = held_job(JOB_RECORD, BATCH_RECORD, Stage.SETTLE, 5)
SEGMENT_HELD = held_segment(SEGMENT_RECORD, BATCH_RECORD, 5, job=JOB_RECORD)

LATE: dict[str, Callable[[World], object]] = {
    "begin a segment": lambda w: w.runtime.clock.begin(Stage.DELIVER, SEGMENT_HELD.member, 5),
    "begin a job": lambda w: w.runtime.clock.begin(Stage.SETTLE, JOB_HELD.member, 5),
    "begin a batch": lambda w: w.runtime.clock.begin(Stage.DELETE, BATCH_HELD.member, 5),
    "claim": lambda w: [w.runtime.clock.claim(queue) for queue in Queue],
    "advance a segment": lambda w: w.runtime.clock.advance(
        SEGMENT_HELD, SegmentMove(stage=Stage.DELIVER, fields={"tries": 1})
    ),
    "advance a job": lambda w: w.runtime.clock.advance(JOB_HELD, JobMove(stage=Stage.SETTLE, fields={"problem": "x"})),
    "keep a job": lambda w: w.runtime.clock.keep(JOB_HELD, {"input": "x"}),
    "keep a batch": lambda w: w.runtime.clock.keep(BATCH_HELD),
    "grant": lambda w: w.runtime.ledger.grant(SEGMENT_HELD, SegmentRows([0])),
    "record": lambda w: w.runtime.ledger.record(SEGMENT_HELD, Tally(counts={"succeeded": 1}), handler_waits=False),
    "record for a handler": lambda w: w.runtime.ledger.record(
        SEGMENT_HELD, Tally(counts={"succeeded": 1}), handler_waits=True
    ),
    "offer": lambda w: w.runtime.deliveries.offer(SEGMENT_HELD, patience=60),
    "withdraw": lambda w: w.runtime.deliveries.withdraw(SEGMENT_HELD),
    "hand over": lambda w: w.runtime.deliveries.taken(SEGMENT_HELD),
    "park": lambda w: w.runtime.deliveries.park(SEGMENT_HELD),
    "cut segments": lambda w: w.runtime.ledger.segment(JOB_HELD, "output", [1]),
    "close": lambda w: w.runtime.ledger.close(
        JOB_HELD, tidy=lambda: None, retries=[Retry.of(JOB_RECORD, Ordinals(first=0, last=1, bitmap=b"\x80")).again()]
    ),
    "put back": lambda w: w.runtime.oddities.put_back_on_clock(lambda: None),
    "admit": lambda w: w.runtime.admission.admit(JOB_HELD, JobTokens(all=1, least=1)),
    "release": lambda w: w.runtime.admission.release(JOB_HELD),
    "lower": lambda w: w.runtime.admission.throttled(JOB_HELD),
    "raise": lambda w: w.runtime.admission.succeeded(JOB_HELD),
    "taken": lambda w: DeliveryClient(w.stack.settings()).taken(f"{JOB}:0"),
    "hand back": lambda w: DeliveryClient(w.stack.settings()).hand_back(f"{JOB}:0", only=None, attempt=1, error="x"),
    "redeliver": lambda w: DeadLetters(w.stack.settings()).redeliver(f"{JOB}:0"),
    "drop": lambda w: DeadLetters(w.stack.settings()).drop(f"{JOB}:0"),
    "cancel": lambda w: Store(w.stack.settings()).cancel(BATCH),
    "delete": lambda w: Store(w.stack.settings()).delete(BATCH),
}
WHO_MAY_SAY_SO = (Superseded, BatchNotFound, DeadLetterNotFound)


def left(runtime: Runtime) -> set[str]:
    return {key.decode() for key in runtime.redis.scan_iter(f"lowtide:*:{BATCH}*")}


@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("segment", [False, True], ids=["all gone", "a segment is left"])
@pytest.mark.parametrize("what", LATE)
def test_nothing_that_comes_late_brings_back_a_part_of_a_deleted_batch(
    stack: Stack, what: str, segment: bool, parked: bool
) -> None:
    runtime = Runtime(stack.worker_settings())
    client = runtime.redis
    stack.empty_redis()
    client.hset(keys.batch(BATCH), mapping=hash_of(BATCH_RECORD))
    client.hset(keys.job(JOB), mapping=hash_of(JOB_RECORD))
    client.set(keys.settled(BATCH), b"\x80")
    client.zadd(keys.BATCHES, {BATCH: 1})
    runtime.deleted.forget(BATCH_HELD, lambda: None)
    assert not left(runtime)
    # What may outlive it: a segment on the clock, and members of sets for all batches.
    client.zadd(keys.waiting("gemini", BATCH_RECORD.model), {JOB: 1})
    client.zadd(keys.in_hand(HANDLER), {SEGMENT_HELD.member: time.time() + 60})
    client.zadd(keys.clock(Queue.RESULTS), {SEGMENT_HELD.member: 1})
    client.zadd(keys.clock(Queue.JOBS), {JOB_HELD.member: 1, BATCH_HELD.member: 1})
    if parked:
        client.zadd(keys.PARKED, {SEGMENT_HELD.member: 1})
    if segment:
        client.hset(keys.entity(SEGMENT_HELD.member), mapping=hash_of(SEGMENT_RECORD))

    with contextlib.suppress(*WHO_MAY_SAY_SO):
        LATE[what](World(runtime, stack))

    assert left(runtime) <= ({keys.entity(SEGMENT_HELD.member)} if segment else set())
    # And the next message for what is left ends it.
    token = int(client.hget(keys.entity(SEGMENT_HELD.member), "token") or 0)
    runtime.clock.begin(Stage.DELIVER, SEGMENT_HELD.member, token)
    assert not left(runtime)


def test_a_job_of_a_deleted_batch_does_not_stand_before_those_that_wait(stack: Stack) -> None:
    runtime = Runtime(stack.worker_settings(max_active_jobs=1))
    client = runtime.redis
    stack.empty_redis()
    client.zadd(keys.waiting("gemini", BATCH_RECORD.model), {JOB: 1, "b0waits-1": 2})
    client.zadd(keys.models("gemini"), {BATCH_RECORD.model: 1})
    client.hset(keys.job("b0waits-1"), mapping={"busy": "0", "stage": Stage.CREATE})
    client.zadd(keys.clock(Queue.JOBS), {keys.job_member("b0waits-1"): time.time() + 1800})

    ends = held_job(a_job("b0ends-1"), BATCH_RECORD, Stage.POLL, 5)
    client.hset(keys.job("b0ends-1"), "token", str(ends.token))

    for _ in range(2):
        runtime.admission.release(ends)

    due = client.zscore(keys.clock(Queue.JOBS), keys.job_member("b0waits-1"))
    assert due is not None
    assert float(str(due)) <= time.time()
