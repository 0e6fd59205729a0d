"""Numbers of records that are none, or none that JSON and arithmetic take: they stop their own record at most."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from tests.integration.budget_desk import INPUT, Desk
from tests.integration.tenant_line import MODEL, Line
from tests.records import a_batch, a_job, a_segment, hash_of, held_segment
from tests.stack import Stack

from lowtide import Request
from lowtide.protocol import BatchRecord, Stage, keys, read_record
from lowtide.store import DeliveryClient, Store
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import HeldJob, Tally

BATCH, JOB = "b0damaged", "b0damaged-1"
SEGMENT = keys.segment_member(JOB, 0)
ODD = ["inf", "-inf", "nan", "x", "1e999", ""]


def record(stack: Stack, **changes: dict[str, Any]) -> None:
    """Records a batch with a job and a stored segment; `changes` are fields of each."""
    batch = a_batch(BATCH, jobs=1, total=1, undelivered=1, on_result="shop.take")
    for name, entity, one in (
        ("batch", keys.batch(BATCH), batch),
        ("job", keys.job(JOB), a_job(JOB, segments=1, segments_left=1)),
        ("segment", keys.entity(SEGMENT), a_segment(JOB, 0, stage=Stage.DELIVER, token=1, stored=True)),
    ):
        stack.redis.hset(entity, mapping=hash_of(one) | changes.get(name, {}))


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("field", ["most_tries", "tries", "begun_attempt", "begun"])
def test_a_handler_hands_back_a_segment_whose_record_is_damaged(emptied: Stack, field: str, odd: str) -> None:
    record(emptied, segment={field: odd})
    handler = DeliveryClient(emptied.settings())

    handler.started(f"{JOB}:0", attempt=1)
    if (field, odd) not in {("tries", "inf"), ("tries", "1e999")}:
        handler.hand_back(f"{JOB}:0", only=None, attempt=1, error="no")
        assert emptied.redis.hget(keys.batch(BATCH), "delivery_problem") == b"no"


@pytest.mark.parametrize("odd", ODD)
def test_a_handler_takes_a_segment_of_a_batch_whose_counters_are_damaged(emptied: Stack, odd: str) -> None:
    record(emptied, batch={"undelivered": odd}, job={"ended": odd})

    DeliveryClient(emptied.settings()).taken(f"{JOB}:0")

    assert not emptied.redis.exists(keys.entity(SEGMENT))


@pytest.mark.parametrize("odd", ODD)
def test_a_record_without_a_version_is_damaged_and_its_stage_says_so(emptied: Stack, odd: str) -> None:
    record(emptied, job={"v": odd, "stage": Stage.POLL, "token": 1})

    held = Runtime(emptied.worker_settings()).clock.begin(Stage.POLL, keys.job_member(JOB), 1)

    assert isinstance(held, HeldJob)
    assert "`v`" in str(held.damage)


@pytest.mark.parametrize("odd", ["inf", "1e18"])
def test_a_cancel_of_a_batch_with_endless_jobs_ends(emptied: Stack, odd: str) -> None:
    record(emptied, batch={"jobs": odd})

    Store(emptied.settings()).cancel(BATCH)

    assert emptied.redis.hget(keys.batch(BATCH), "state") == b"cancelling"


@pytest.mark.parametrize("odd", ODD)
def test_a_job_whose_cost_is_damaged_stops_no_other_of_its_budget(emptied: Stack, odd: str) -> None:
    desk = Desk(emptied)
    first, second = (desk.job("b0cost", number, max_cost=130 * INPUT) for number in (1, 2))
    assert desk.admit(first) == 100
    emptied.redis.hset(keys.job(first.record.id), "paid_cost", odd)
    emptied.redis.hset(keys.reserved("b0cost"), first.record.id, odd)

    assert desk.admit(second) == 100


def test_a_job_whose_key_is_another_programs_stops_no_other_of_its_line(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("holds")
    [odd], [waits] = line.wait("odd"), line.wait("waits")
    emptied.redis.delete(keys.job(odd))
    emptied.redis.set(keys.job(odd), "x")

    line.end()

    assert line.live == [waits]


def test_an_earlier_versions_batch_that_is_another_programs_key_stops_no_line(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("holds")
    emptied.redis.set(keys.batch("b0odd"), "x")
    emptied.redis.hset(keys.job("b0odd-1"), mapping={"stage": Stage.CREATE, "awaits": "slot"})
    emptied.redis.zadd(keys.waiting("gemini", MODEL), {"b0odd-1": 1.0})

    line.end()

    assert emptied.redis.hexists(keys.strand_of("gemini", MODEL), "b0odd-1")


@pytest.mark.parametrize("odd", ["1e300", "inf", "-5", "x"])
def test_a_line_whose_cursor_is_damaged_gets_its_strands(emptied: Stack, odd: str) -> None:
    line = Line(emptied)
    line.wait("holds")
    line.wait("waits")
    emptied.redis.set(keys.matched("gemini", MODEL), odd)
    emptied.redis.hset(keys.job("b0odd-1"), mapping={"stage": Stage.CREATE, "awaits": "slot"})
    emptied.redis.zadd(keys.waiting("gemini", MODEL), {"b0odd-1": 1.0})

    line.end()

    assert emptied.redis.hexists(keys.strand_of("gemini", MODEL), "b0odd-1")


@pytest.mark.parametrize("odd", ["inf", "x", "99999999"])
def test_a_batch_of_a_damaged_bundle_can_be_shown(emptied: Stack, odd: str) -> None:
    batch = emptied.queue().submit([Request(key="a", contents="x")], model=MODEL, share=True)
    bundle = batch.status().bundle
    assert bundle
    emptied.redis.hset(keys.batch(bundle), "jobs", odd)
    if odd == "inf":
        emptied.redis.zadd(keys.bundled(bundle), {batch.id: odd})

    assert batch.status().total == 1


@pytest.mark.parametrize("odd", ['{"X": 1e999}', '{"X": "x"}', "[1e999]"])
def test_reasons_that_are_no_numbers_keep_no_segment_from_being_counted(emptied: Stack, odd: str) -> None:
    runtime = Runtime(emptied.worker_settings())
    record(emptied, batch={"reasons": odd})
    segment = held_segment(a_segment(JOB, 0), a_batch(BATCH), job=a_job(JOB))

    runtime.ledger.record(segment, Tally(reasons={"SAFETY": 1}), handler_waits=False)

    batch = read_record(BatchRecord, cast("dict[bytes, bytes]", emptied.redis.hgetall(keys.batch(BATCH))))
    assert batch.reasons["SAFETY"] == 1


def test_a_damaged_bundle_takes_no_more_batches_and_refuses_none(emptied: Stack) -> None:
    queue = emptied.queue()
    requests = [Request(key="a", contents="x")]
    first = queue.submit(requests, model=MODEL, share=True).status().bundle
    assert first
    emptied.redis.hset(keys.batch(first), "total", "x")

    assert queue.submit(requests, model=MODEL, share=True).status().bundle not in {first, None}


@pytest.mark.parametrize("odd", ODD)
def test_a_request_that_was_asked_in_a_damaged_batch_is_asked_again(emptied: Stack, odd: str) -> None:
    queue, request = emptied.queue(), Request(contents=f"Once {time.time()}")
    first = queue.add(request, model=MODEL, reuse=60)
    emptied.redis.hset(keys.batch(first.id.partition(".")[0]), "failed", odd)

    assert queue.add(request, model=MODEL, reuse=60).id != first.id
