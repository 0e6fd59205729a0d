"""The ledger's scripts against a real server: each request is granted once, whatever comes in whatever order."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import cast

import pytest
from tests.records import a_batch, a_job, a_segment, hash_of, held_batch, held_job, held_segment
from tests.stack import Stack

from lowtide.models import ResultError
from lowtide.protocol import OTHERS, BatchRecord, Stage, keys, read_record
from lowtide.states import BatchState
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import HeldSegment, Ledger, Ordinals, Superseded, Tally

BATCH, JOB = "b0ledger", "b0ledger-1"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with Stack(tmp_path_factory.mktemp("ledger")) as stack:
        yield Runtime(stack.worker_settings())


@pytest.fixture
def ledger(runtime: Runtime) -> Ledger:
    runtime.redis.flushdb()
    runtime.redis.hset(keys.batch(BATCH), mapping=hash_of(a_batch(BATCH)))
    runtime.redis.hset(keys.job(JOB), mapping={"segments": 3, "segments_left": 12})
    return runtime.ledger


def segment(runtime: Runtime, number: int, token: int = 1) -> HeldSegment:
    held = held_segment(a_segment(JOB, number), a_batch(BATCH), token)
    runtime.redis.hset(keys.entity(held.member), mapping={"token": 1, "stage": Stage.DELIVER, "number": number})
    return held


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 8), (3, 2), (3, 100), (8, 64), (13, 1000), (7, 9), (5, 3)])
def test_consecutive_requests_are_granted_once_and_no_others_are_touched(
    runtime: Runtime, ledger: Ledger, first: int, count: int
) -> None:
    wanted = list(range(first, first + count))

    assert ledger.grant(segment(runtime, 0), wanted) == [True] * count
    assert ledger.grant(segment(runtime, 1), wanted) == [False] * count

    bitmap = runtime.redis.get(keys.settled(BATCH))
    assert isinstance(bitmap, bytes)
    settled = [n for n in range(8 * len(bitmap)) if bitmap[n // 8] & (0x80 >> n % 8)]
    assert settled == wanted


def test_requests_in_any_order_and_twice_are_granted_as_a_set_would(runtime: Runtime, ledger: Ledger) -> None:
    dice = random.Random(7)
    seen: set[int] = set()
    for number in range(60):
        start = dice.randrange(300)
        run = list(range(start, start + dice.randrange(1, 60)))
        wanted = run if dice.random() < 0.5 else [dice.randrange(400) for _ in run]
        expected = []
        for ordinal in wanted:
            expected.append(ordinal not in seen)
            seen.add(ordinal)

        assert ledger.grant(segment(runtime, number), wanted) == expected

    left = ledger.unsettled(BATCH, Ordinals(first=0, last=400))
    assert set(left or ()) == set(range(400)) - seen


@pytest.mark.parametrize("holder", [BATCH, "b0another"], ids=["its own", "another's"])
def test_a_lost_batch_frees_its_destination_and_no_other(runtime: Runtime, ledger: Ledger, holder: str) -> None:
    batch = a_batch(BATCH, destination="gs://bucket/folder/", idempotency_key="key", total=3)
    claim, key = keys.destination("gs://bucket/folder"), keys.idempotency("key")
    runtime.redis.hset(keys.batch(BATCH), mapping={**hash_of(batch), "token": 1, "stage": Stage.SUBMIT})
    runtime.redis.mset({claim: holder, key: f"{holder} fingerprint"})

    ledger.lose(held_batch(batch, Stage.SUBMIT), ResultError(reason="REQUESTS_LOST", message="gone"))

    assert counted(runtime).state is BatchState.FAILED
    assert [bool(runtime.redis.exists(name)) for name in (claim, key)] == [holder != BATCH] * 2


def test_a_batch_whose_counts_do_not_add_up_is_left_as_it_is(runtime: Runtime, ledger: Ledger) -> None:
    client, member = runtime.redis, keys.job_member(f"{BATCH}-1")
    client.hset(keys.batch(BATCH), mapping={"total": 2, "succeeded": 1, "open": 1, "state": "running"})
    client.hset(keys.entity(member), mapping={"token": 1, "stage": Stage.SETTLE})
    before = [client.hgetall(key) for key in (keys.batch(BATCH), keys.entity(member))]
    tidied: list[bool] = []

    job = held_job(a_job(f"{BATCH}-1"), a_batch(BATCH), Stage.SETTLE)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="do not add up"):
            ledger.close(job, tidy=lambda: tidied.append(True))

    assert [client.hgetall(key) for key in (keys.batch(BATCH), keys.entity(member))] == before
    assert not client.exists(keys.clock(Stage.SETTLE.queue))
    assert not tidied


def test_a_segment_that_runs_again_gets_the_same_grant(runtime: Runtime, ledger: Ledger) -> None:
    held = segment(runtime, 0)
    ledger.grant(held, [1, 2, 3])

    assert ledger.grant(held, [1, 2, 3]) == [True, True, True]


def test_whoever_lost_the_segment_is_granted_nothing(runtime: Runtime, ledger: Ledger) -> None:
    with pytest.raises(Superseded):
        ledger.grant(segment(runtime, 0, token=9), [1, 2, 3])

    assert runtime.redis.get(keys.settled(BATCH)) is None


TALLY = Tally(
    counts={"succeeded": 2, "total_token_count": 46},
    paid={"total_token_count": 69},
    reasons={"SAFETY": 1},
    models={"gemini-3.5-flash": 2},
)


def counted(runtime: Runtime) -> BatchRecord:
    return read_record(BatchRecord, cast("dict[bytes, bytes]", runtime.redis.hgetall(keys.batch(BATCH))))


def test_a_segment_is_counted_once_however_often_it_comes(runtime: Runtime, ledger: Ledger) -> None:
    held = segment(runtime, 0)
    ledger.record(held, TALLY, handler_waits=False)
    with pytest.raises(Superseded):
        ledger.record(held, TALLY, handler_waits=False)

    batch = counted(runtime)
    assert (batch.total_token_count, batch.paid_total_token_count) == (46, 69)
    assert (batch.reasons, batch.models) == ({"SAFETY": 1}, {"gemini-3.5-flash": 2})


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_requests_that_run_again_are_counted_once_although_their_rows_are_collected_again(
    runtime: Runtime, ledger: Ledger, late: bool
) -> None:
    again = Tally(retried={"EMPTY": 2, "UNAVAILABLE": 1})
    stored, gone = segment(runtime, 0), segment(runtime, 1)
    for step in (1, 0) if late else (0, 1):
        if step == 0:
            ledger.record(stored, again, handler_waits=False)
        else:
            ledger.recollect(gone, from_provider=True)
    ledger.record(segment(runtime, 3), again, handler_waits=False)
    ledger.record(segment(runtime, 4), Tally(retried={"EMPTY": 1}), handler_waits=False)

    kept = cast("bytes", runtime.redis.hget(keys.job(JOB), "retried_by"))
    assert json.loads(kept) == {"EMPTY": 3, "UNAVAILABLE": 1}


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_rows_that_are_collected_again_were_paid_once(runtime: Runtime, ledger: Ledger, late: bool) -> None:
    """A stored segment is counted before or after another one is found to be gone."""
    stored, gone = segment(runtime, 0), segment(runtime, 1)
    for step in (1, 0) if late else (0, 1):
        if step == 0:
            ledger.record(stored, TALLY, handler_waits=False)
        else:
            ledger.recollect(gone, from_provider=True)
    # The rows of the stored segment come again, as duplicates.
    ledger.record(segment(runtime, 3), Tally(paid=TALLY.paid), handler_waits=False)
    ledger.record(segment(runtime, 4), TALLY, handler_waits=False)

    batch = counted(runtime)
    assert batch.total_token_count == 2 * 46
    assert batch.paid_total_token_count == 2 * 69


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_rows_that_do_not_come_again_stay_paid(runtime: Runtime, ledger: Ledger, late: bool) -> None:
    """Of an output that is gone when it is collected again, only the rows that came before are known."""
    stored, gone = segment(runtime, 0), segment(runtime, 1)
    for step in (1, 0) if late else (0, 1):
        if step == 0:
            ledger.record(stored, TALLY, handler_waits=False)
        else:
            ledger.recollect(gone, from_provider=True)

    assert counted(runtime).paid_total_token_count == 69


def test_each_further_collection_counts_only_what_no_other_has_found(runtime: Runtime, ledger: Ledger) -> None:
    ledger.record(segment(runtime, 0), TALLY, handler_waits=False)
    for collection, rows in enumerate((1, 3, 2), 1):
        ledger.recollect(segment(runtime, 3 * collection - 1), from_provider=True)
        for number in range(rows):
            ledger.record(segment(runtime, 3 * collection + number), TALLY, handler_waits=False)
        runtime.redis.hset(keys.job(JOB), "segments", 3 * collection + 3)

    assert counted(runtime).paid_total_token_count == 3 * 69


def test_a_batch_has_a_limited_number_of_reasons_and_survives_odd_ones(runtime: Runtime, ledger: Ledger) -> None:
    odd = {f'R{number}"\\\n€': 2 for number in range(70)}
    runtime.redis.hset(keys.batch(BATCH), "models", "no json")
    for number in range(2):
        ledger.record(segment(runtime, number), Tally(reasons=odd, models={"gemini-3.5-flash": 1}), handler_waits=False)

    batch = counted(runtime)
    assert len(batch.reasons) == 51
    assert batch.reasons[OTHERS] == 2 * 2 * 20
    assert sum(batch.reasons.values()) == 2 * 2 * 70
    assert batch.models == {"gemini-3.5-flash": 2}
