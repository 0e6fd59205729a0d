"""The ledger's scripts against a real server: each request is granted once, whatever comes in whatever order."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import date
from typing import cast

import pytest
from tests.records import a_batch, a_job, a_segment, hash_of, held_batch, held_job, held_segment
from tests.stack import Stack

from lowtide.models import ResultError
from lowtide.protocol import OTHERS, BatchFiles, BatchRecord, Stage, keys, read_record
from lowtide.protocol.daily_costs import MOST_NAMES, OTHER_NAMES, CostDimension, DayCosts, read_day
from lowtide.states import BatchState
from lowtide_worker.intents import forgotten_jobs
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import DailyCost, HeldSegment, Ledger, Ordinals, SegmentRows, Superseded, Tally

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
    held = held_segment(a_segment(JOB, number), a_batch(BATCH), token, job=a_job(JOB, last=2000))
    runtime.redis.hset(keys.entity(held.member), mapping={"token": 1, "stage": Stage.DELIVER, "number": number})
    return held


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 8), (3, 2), (3, 100), (8, 64), (13, 1000), (7, 9), (5, 3)])
def test_consecutive_requests_are_granted_once_and_no_others_are_touched(
    runtime: Runtime, ledger: Ledger, first: int, count: int
) -> None:
    wanted = list(range(first, first + count))

    assert ledger.grant(segment(runtime, 0), SegmentRows(wanted)) == (b"1" * count, b"1" * count)
    assert ledger.grant(segment(runtime, 1), SegmentRows(wanted)) == (b"0" * count, b"0" * count)

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
            expected.append(ord("0") + (ordinal not in seen))
            seen.add(ordinal)

        assert ledger.grant(segment(runtime, number), SegmentRows(wanted)) == (bytes(expected), bytes(expected))

    left = ledger.unsettled(BATCH, Ordinals(first=0, last=400))
    assert set(left or ()) == set(range(400)) - seen


def test_intents_of_jobs_that_redis_has_forgotten_are_read_however_they_are_damaged(
    runtime: Runtime, ledger: Ledger
) -> None:
    assert ledger is runtime.ledger
    files, whole = BatchFiles(BATCH), {"display_name": "x", "number": 1}
    of_jobs: dict[str, object] = {
        "1": whole | {"last": 8},
        "2": whole | {"first": 3, "last": 10**15},
        "3": whole | {"first": 2, "last": 9, "bitmap": "gQ=="},
        "4": whole,
        "5": "nonsense",
        "9" * 200: whole | {"last": 8},
        "x": whole | {"last": 8},
    }
    for name, intent in of_jobs.items():
        with runtime.spool.write(f"{files.jobs}/{name}/intent.json") as file:
            file.write(json.dumps(intent).encode())

    found = forgotten_jobs(runtime, held_job(a_job(JOB), a_batch(BATCH, total=12), Stage.SETTLE))

    assert {number: list(requests) for number, requests in found.items()} == {
        2: list(range(3, 12)),
        3: [2, 9],
        4: [],
        5: [],
    }


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
    rows = SegmentRows([1, 2, 3], [5, 7], [b"stranger", b"another."])
    first = ledger.grant(held, rows)

    assert ledger.grant(held, rows) == first == (b"111", b"1111111")


def test_whoever_lost_the_segment_is_granted_nothing(runtime: Runtime, ledger: Ledger) -> None:
    with pytest.raises(Superseded):
        ledger.grant(segment(runtime, 0, token=9), SegmentRows([1, 2, 3]))

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


ROWS = SegmentRows([0, 1], [2], [b"stranger"])
"""Two final rows, one whose request runs again, and one of a stranger."""


def counts(runtime: Runtime, number: int, rows: SegmentRows = ROWS) -> None:
    """Grants and records a segment. Each row that is counted is paid 10 tokens and 30 nano-dollars."""
    held = segment(runtime, number)
    granted = runtime.ledger.grant(held, rows)
    rows_paid = granted.counted.count(b"1")
    paid = {"total_token_count": 10 * rows_paid, "cost": 30 * rows_paid}
    again = granted.counted[len(rows.final) : len(rows.final) + len(rows.again)].count(b"1")
    runtime.ledger.record(held, Tally(paid=paid, retried={"EMPTY": again} if again else {}), handler_waits=False)


def paid(runtime: Runtime) -> tuple[int, int | None, dict[str, int]]:
    """The tokens and the cost that a batch has paid, and the rows of its job whose requests run again."""
    batch, retried = counted(runtime), runtime.redis.hget(keys.job(JOB), "retried_by")
    return batch.paid_total_token_count, batch.paid_cost, json.loads(cast("bytes", retried or b"{}"))


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_rows_that_are_collected_again_are_counted_once(runtime: Runtime, ledger: Ledger, late: bool) -> None:
    """A stored segment is counted before or after another one is found to be gone."""
    for step in (1, 0) if late else (0, 1):
        if step == 0:
            counts(runtime, 0)
        else:
            ledger.recollect(segment(runtime, 1), from_provider=True)
    counts(runtime, 3)
    counts(runtime, 4, SegmentRows([3], [2, 4]))

    assert paid(runtime) == (60, 180, {"EMPTY": 2})


def test_rows_of_a_segment_that_is_lost_before_it_is_counted_are_counted_by_another(
    runtime: Runtime, ledger: Ledger
) -> None:
    lost = segment(runtime, 0)
    ledger.grant(lost, ROWS)
    ledger.recollect(lost, from_provider=True)
    assert not any(runtime.redis.bitcount(key) for key in (keys.settled(BATCH), keys.counted(JOB)))
    assert not runtime.redis.exists(keys.strangers(JOB))

    counts(runtime, 3)
    assert paid(runtime) == (40, 120, {"EMPTY": 1})


def test_a_stranger_that_met_a_lost_segment_is_collected_once_more(runtime: Runtime, ledger: Ledger) -> None:
    lost = segment(runtime, 0)
    ledger.grant(lost, SegmentRows([], [], [b"stranger"]))
    ledger.recollect(segment(runtime, 1), from_provider=True)
    # It may have passed the stranger by now, which was counted already.
    before = runtime.redis.hget(keys.job(JOB), "token")

    ledger.recollect(lost, from_provider=True)

    assert int(cast("bytes", runtime.redis.hget(keys.job(JOB), "token"))) == int(cast("bytes", before)) + 1


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_rows_that_do_not_come_again_stay_paid(runtime: Runtime, ledger: Ledger, late: bool) -> None:
    """Of an output that is gone when it is collected again, only the rows that came before are known."""
    for step in (1, 0) if late else (0, 1):
        if step == 0:
            counts(runtime, 0)
        else:
            ledger.recollect(segment(runtime, 1), from_provider=True)

    assert paid(runtime) == (40, 120, {"EMPTY": 1})


def test_rows_that_come_twice_in_one_output_were_paid_once(runtime: Runtime, ledger: Ledger) -> None:
    counts(runtime, 0, SegmentRows([0, 1, 1], [2, 2], [b"stranger", b"stranger"]))

    assert paid(runtime) == (40, 120, {"EMPTY": 1})


def test_rows_of_two_jobs_for_one_request_are_both_paid(runtime: Runtime, ledger: Ledger) -> None:
    counts(runtime, 0)
    other = f"{BATCH}-2"
    held = held_segment(a_segment(other, 0), a_batch(BATCH), job=a_job(other, first=1, last=3))
    runtime.redis.hset(keys.entity(held.member), mapping={"token": 1, "stage": Stage.DELIVER, "number": 0})

    assert ledger.grant(held, SegmentRows([1, 2])) == (b"01", b"11")


def test_a_day_counts_what_was_paid_by_name_and_the_names_beyond_the_limit_together(
    runtime: Runtime, ledger: Ledger
) -> None:
    day, amounts = date(2026, 11, 27), DayCosts(requests=2, input=7, cost=9)
    names = [f"team|{number}=a" for number in range(MOST_NAMES + 3)]
    daily = [DailyCost(CostDimension.LABEL, name, amounts) for name in names]
    budgeted = DailyCost(CostDimension.LABEL, "team=budget", amounts, always=True)
    ledger.record(segment(runtime, 0), Tally(day=day, daily=[*daily, budgeted]), handler_waits=False)
    ledger.record(segment(runtime, 1), Tally(day=day, daily=[*daily[-4:], budgeted]), handler_waits=False)

    found = read_day(cast("dict[bytes, bytes]", runtime.redis.hgetall(keys.costs(day))))
    assert len(found) == MOST_NAMES + 2
    assert found[CostDimension.LABEL, OTHER_NAMES] == DayCosts(requests=12, input=42, cost=54)
    assert found[CostDimension.LABEL, names[MOST_NAMES - 1]] == amounts + amounts
    assert found[CostDimension.LABEL, "team=budget"] == amounts + amounts
    assert 399 * 86_400 < runtime.redis.ttl(keys.costs(day)) <= 400 * 86_400


def test_a_damaged_day_stops_no_work(runtime: Runtime, ledger: Ledger) -> None:
    day = date(2026, 11, 27)
    runtime.redis.set(keys.costs(day), "no hash")
    daily = [DailyCost(CostDimension.MODEL, "gemini-3.5-flash", DayCosts(requests=1))]

    ledger.record(segment(runtime, 0), Tally(paid={"cost": 5}, day=day, daily=daily), handler_waits=False)

    assert counted(runtime).paid_cost == 5


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
