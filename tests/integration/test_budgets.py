"""Budgets: whatever jobs ask for, end, cost or are divided, nothing is sent that a budget does not pay for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from msgspec.structs import replace as replace_fields
from tests.integration.budget_desk import INPUT, MODEL, NOON, TEAM, Desk
from tests.stack import Stack

from lowtide import Request
from lowtide.budgets import Shortage
from lowtide.protocol import BatchFiles, Member, Stage, job_id, keys
from lowtide.states import Awaited, JobState, OverBudget
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.create import _shared, create
from lowtide_worker.stages.division import tokens_of
from lowtide_worker.stages.gather import gather
from lowtide_worker.stages.submit import submit
from lowtide_worker.state import (
    Admission,
    BudgetSpentError,
    HeldBatch,
    HeldJob,
    JobTokens,
    Move,
    UnknownPriceError,
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("budgets")) as stack:
        yield stack


def test_a_job_gets_as_many_requests_as_the_max_cost_of_its_batch_pays_for(stack: Stack) -> None:
    desk = Desk(stack)
    first, second = (desk.job("b0cost", number, max_cost=130 * INPUT) for number in (1, 2))

    assert desk.admit(first) == 100
    assert desk.admit(second) == 30
    assert desk.admit(second, 25) == 25  # after it was divided
    assert desk.reserved("b0cost") == {first.record.id: 100 * INPUT, second.record.id: 25 * INPUT}


def test_a_job_waits_while_others_of_its_batch_may_turn_out_cheaper_and_then_goes_on(stack: Stack) -> None:
    desk = Desk(stack)
    first, second = (desk.job("b0wait", number, max_cost=100 * INPUT) for number in (1, 2))
    assert desk.admit(first) == 100

    assert desk.admit(second) == 0
    waits = desk.record(second)
    assert waits.awaits is Awaited.BUDGET
    assert waits.shortage == Shortage(budget="b0wait", limit=100 * INPUT, spent=0, reserved=100 * INPUT, needed=INPUT)

    desk.door.release(first)
    assert not desk.is_due(second), "a job that has ended holds its cost until its rows are counted"
    desk.pays(first, 40 * INPUT, rows=100)
    desk.closes(first)
    assert desk.is_due(second)
    assert desk.admit(second) == 100, "a token has turned out to cost less than half of its price"
    assert desk.record(second).shortage is None


def test_a_job_fails_where_the_max_cost_is_spent_and_nothing_is_under_way(stack: Stack) -> None:
    desk = Desk(stack)
    first, second = (desk.job("b0spent", number, max_cost=100 * INPUT) for number in (1, 2))
    desk.admit(first)
    desk.pays(first, 99 * INPUT, rows=100)
    desk.closes(first)

    with pytest.raises(BudgetSpentError, match=r"max_cost .* \$0.000075, and the next request may cost \$0.000000744"):
        desk.admit(second)
    desk.closes(second)
    assert list(stack.redis.scan_iter("lowtide:reserved:*")) == []
    assert list(stack.redis.scan_iter("lowtide:waiting-for:*")) == []


def test_a_job_of_a_batch_that_waits_does_not_fail(stack: Stack) -> None:
    desk = Desk(stack)
    job = desk.job("b0patient", max_cost=100 * INPUT, over_budget=OverBudget.WAIT)
    desk.pays(job, 100 * INPUT)

    assert desk.admit(job) == 0
    assert desk.record(job).awaits is Awaited.BUDGET


@pytest.mark.parametrize(
    ("options", "raised"),
    [
        ({"max_cost": 10**9}, BudgetSpentError),
        ({"max_cost": 10**9, "over_budget": OverBudget.WAIT}, UnknownPriceError),
        ({"labels": TEAM}, UnknownPriceError),
    ],
    ids=["fails", "waits", "label"],
)
def test_nothing_is_sent_under_a_budget_whose_worker_knows_no_price(
    stack: Stack, options: dict[str, Any], raised: type[Exception]
) -> None:
    desk = Desk(stack, budgets={"team=catalog": {"day": "1"}})
    job = desk.job("b0noprice", model="gemini-9-flash", **options)

    with pytest.raises(raised, match="no price is known for gemini-9-flash on 2026-11-10; write one into the file"):
        desk.admit(job)
    assert desk.record(job).awaits is Awaited.BUDGET
    stack.redis.hset(keys.entity(job.member), "problem", "no price")
    assert desk.admit(replace(job, batch=replace_fields(job.batch, model=MODEL))) == 100
    assert desk.record(job).problem is None


@pytest.mark.parametrize(
    "options",
    [{"model": "gemini-9-flash"}, {"max_cost": 1}, {"max_cost": 1, "over_budget": OverBudget.WAIT}],
    ids=["no-price", "fails", "waits"],
)
def test_a_job_that_only_the_spool_knows_of_is_looked_for_before_a_budget_keeps_it_away(
    stack: Stack, options: dict[str, Any]
) -> None:
    desk = Desk(stack)
    runtime = Runtime(stack.worker_settings())
    job = desk.job("b0paid", **{"max_cost": 10**9, "created": NOON} | options)
    job = replace(job, record=replace_fields(job.record, tokens=100, least=1, output_tokens=0, least_output=0))
    intent = BatchFiles("b0paid").intent(1)
    without = create(runtime, job)
    runtime.spool.create(intent, b'{"display_name":"lowtide-b0paid-1","number":1}')

    found = create(runtime, job)

    runtime.spool.delete(intent)
    assert isinstance(without, Move)
    assert "intent" not in without.fields
    assert isinstance(found, Move)
    assert (found.stage, found.fields["creates"], found.fields["state"]) == (Stage.CREATE, 1, JobState.CREATING)


def test_the_rows_of_a_batch_correct_its_estimate(stack: Stack) -> None:
    desk = Desk(stack)
    cheap, next_one = (desk.job("b0cheap", number, max_cost=10_000 * INPUT) for number in (1, 2))
    desk.admit(cheap)
    desk.pays(cheap, 90 * INPUT // 2, rows=90)
    desk.closes(cheap)

    assert desk.admit(next_one) == 100
    assert desk.reserved("b0cheap") == {next_one.record.id: pytest.approx(55 * INPUT, rel=0.01)}


def test_a_job_is_estimated_by_its_own_requests_and_not_by_the_average_of_its_batch(stack: Stack) -> None:
    """Many short requests, and one of as much input as all the others: their answers may be equally long."""
    desk = Desk(stack)
    output = 4500 * 100
    batch = {"total": 1001, "tokens": 11_000, "output_tokens": 100_100}
    short = desk.job("b0smear", max_cost=10 * (output + INPUT), **batch)

    granted = desk.door.admit(short, JobTokens(1000, 1, 100_000, 100), desk.door.budgets(short))

    assert granted.tokens == 1000
    assert granted.cost == 10 * (output + INPUT)
    assert not granted.whole
    assert desk.reserved("b0smear") == {short.record.id: granted.cost}


def test_jobs_of_cheap_requests_do_not_make_the_estimate_of_expensive_ones_smaller(stack: Stack) -> None:
    desk = Desk(stack)
    batch = {"total": 1001, "tokens": 1_001_000, "output_tokens": 0}
    short, long = (desk.job("b0long", number, max_cost=10**12, **batch) for number in (1, 2))
    desk.admit(short, 1000)
    desk.pays(short, 1000 * INPUT, rows=1000)
    desk.closes(short)

    desk.admit(long, 1_000_000)

    assert desk.reserved("b0long") == {long.record.id: 1_000_000 * INPUT}


def test_a_row_without_a_price_counts_as_the_others_do(stack: Stack) -> None:
    desk = Desk(stack)
    job = desk.job("b0unknown", max_cost=100 * INPUT)
    stack.redis.hset(keys.batch("b0unknown"), "unpriced", 60)

    assert desk.admit(job) == 40


def test_a_row_without_a_price_fills_the_budget_of_its_label_too(stack: Stack) -> None:
    desk = Desk(stack, budgets={"team=catalog": {"day": "0.000075"}})
    job = desk.job("b0unpriced", labels=TEAM)
    today = keys.costs(datetime.fromtimestamp(NOON, UTC).date())
    stack.redis.hset(today, mapping={"label|team=catalog|unpriced": 60, "label|team=catalog|cost": 15 * INPUT})

    assert desk.admit(job) == 25


def test_singles_under_a_budget_are_estimated_by_the_output_that_they_allow(stack: Stack) -> None:
    stack.empty_redis()
    budgets = {"team=catalog": {"day": "1"}}
    singles = [Request(contents="x", config={"max_output_tokens": 50}), Request(contents="y")]
    runtime = Runtime(stack.worker_settings(budgets=budgets))
    [ticket, _] = stack.queue(budgets=budgets).add_many(singles, model=MODEL, labels=TEAM)
    batch_id = ticket.status().batch_id
    token = int(cast("bytes", stack.redis.hget(keys.batch(batch_id), "token")))
    held = runtime.clock.begin(Stage.GATHER, keys.batch_member(batch_id), token)
    assert isinstance(held, HeldBatch)

    gather(runtime, held)

    bundle = cast("bytes", stack.redis.hget(keys.batch(batch_id), "bundle"))
    for name in (batch_id, bundle.decode()):
        assert stack.redis.hget(keys.batch(name), "output_tokens") == b"2050"


def test_a_budget_that_no_producer_knows_holds_for_batches_that_share_a_job(stack: Stack) -> None:
    """The bundle has no label, as its producers know no budget. The worker asks its batches."""
    stack.empty_redis()
    runtime = Runtime(stack.worker_settings(budgets={"team=catalog": {"day": "0.000000001"}}))
    queue = stack.queue(share_jobs=True, linger_seconds=600, linger_requests=10)
    labelled, other = (
        queue.submit([Request(key="k", contents="x")], model=MODEL, labels=one) for one in (TEAM, {"team": "a"})
    )
    bundle = labelled.status().bundle
    assert bundle is not None
    assert bundle == other.status().bundle
    begin(runtime, Stage.SUBMIT, keys.batch_member(bundle), submit)

    waits = begin(runtime, Stage.CREATE, keys.job_member(job_id(bundle, 1)), create)

    assert isinstance(waits, Move)
    assert waits.stage is Stage.CREATE
    [job] = labelled.status().jobs
    assert job.awaits is Awaited.BUDGET
    assert job.shortage is not None
    assert job.shortage.budget == "team=catalog"
    labelled.cancel()
    runtime.redis.hset(keys.job(job.id), "busy", 0)
    assert begin(runtime, Stage.CREATE, keys.job_member(job.id), create) == Move(stage=Stage.CREATE)
    rest = runtime.clock.begin(Stage.CREATE, keys.job_member(job.id), token_of(runtime, keys.job_member(job.id)))
    assert isinstance(rest, HeldJob)
    assert list(runtime.ledger.carried(rest)) == [1]
    assert not runtime.admission.budgets(rest, _shared(runtime, rest))


FAR = 4e9
"""A time at which nothing is due."""


def test_a_shared_job_that_leaves_out_a_cancelled_batch_leaves_its_budget_to_others(stack: Stack) -> None:
    stack.empty_redis()
    budgets = {f"team={name}": {"day": "1"} for name in ("a", "b")}
    runtime = Runtime(stack.worker_settings(budgets=budgets))
    queue = stack.queue(share_jobs=True, linger_seconds=600, linger_requests=10)
    cancelled, _ = (
        queue.submit([Request(key="k", contents="x")], model=MODEL, labels={"team": name}) for name in ("a", "b")
    )
    bundle = str(cancelled.status().bundle)
    begin(runtime, Stage.SUBMIT, keys.batch_member(bundle), submit)
    member, id_ = keys.job_member(job_id(bundle, 1)), job_id(bundle, 1)
    job = runtime.clock.begin(Stage.CREATE, member, token_of(runtime, member))
    assert isinstance(job, HeldJob)
    shared = _shared(runtime, job)
    reader = runtime.requests.of(job.batch)
    whole = tokens_of(runtime, job, reader, output=True)
    assert runtime.admission.admit(job, whole, runtime.admission.budgets(job, shared)).tokens == whole.all
    held = [int(cast("bytes", stack.redis.hget(keys.reserved(name), id_))) for name in budgets]
    waits = keys.job_member("b0waits-1")
    for name in budgets:
        stack.redis.zadd(keys.waiting_for(name), {waits: 1.0})
    stack.redis.hset(keys.entity(waits), mapping={"stage": str(Stage.CREATE), "token": 1})
    stack.redis.zadd(keys.clock(Stage.CREATE.queue), {waits: FAR})
    cancelled.cancel()
    stack.redis.hset(keys.job(id_), "busy", 0)

    assert begin(runtime, Stage.CREATE, member, create) == Move(stage=Stage.CREATE)

    assert stack.redis.hgetall(keys.reserved("team=a")) == {}
    assert stack.redis.zcard(keys.waiting_for("team=a")) == 0
    assert float(str(stack.redis.zscore(keys.clock(Stage.CREATE.queue), waits))) < FAR
    left = runtime.clock.begin(Stage.CREATE, member, token_of(runtime, member))
    assert isinstance(left, HeldJob)
    rest = tokens_of(runtime, left, reader, output=True)
    runtime.admission.admit(left, rest, runtime.admission.budgets(left, _shared(runtime, left)))
    [half] = [int(cast("bytes", cost)) for cost in stack.redis.hvals(keys.reserved("team=b"))]
    assert half == held[1] // 2
    assert stack.redis.zcard(keys.waiting_for("team=b")) == 0


def token_of(runtime: Runtime, member: Member) -> int:
    return int(cast("bytes", runtime.redis.hget(keys.entity(member), "token")))


def begin(runtime: Runtime, stage: Stage, member: Member, run: Callable[[Runtime, Any], object]) -> object:
    """Runs a stage in this process; returns its end."""
    return run(runtime, runtime.clock.begin(stage, member, token_of(runtime, member)))


def test_a_job_that_leaves_out_requests_before_it_is_divided_gets_no_more_than_before(stack: Stack) -> None:
    """Its worker died between admission and division, and a batch that shares it was cancelled."""
    desk = Desk(stack, budgets={"team=catalog": {"day": "0.000075"}})
    job = desk.job("b0narrowed", labels=TEAM)
    assert desk.admit(job, 200) == 100

    assert desk.admit(job, 150) == 100

    assert desk.reserved("team=catalog") == {job.record.id: 100 * INPUT}


def test_a_job_whose_first_request_is_now_too_expensive_for_what_it_got_asks_again(stack: Stack) -> None:
    desk = Desk(stack, budgets={"team=catalog": {"day": "0.000075"}})
    job = desk.job("b0first", labels=TEAM)
    assert desk.admit(job, 200) == 100

    assert desk.admit(job, 150, least=120) == 0

    assert desk.record(job).awaits is Awaited.BUDGET
    assert desk.reserved("team=catalog") == {}
    assert desk.admit(job, 30, least=10) == 30


@pytest.mark.parametrize("refuse", [Admission.throttled, Admission.withdraw], ids=["quota", "denied"])
def test_a_job_that_the_provider_does_not_take_leaves_its_budget_to_others(
    stack: Stack, refuse: Callable[[Admission, HeldJob], None]
) -> None:
    desk = Desk(stack, budgets={"team=catalog": {"day": "0.000075"}})
    refused, other = (desk.job(f"b0shut{number}", labels=TEAM) for number in (1, 2))
    assert desk.admit(refused) == 100
    assert desk.admit(other) == 0

    refuse(desk.door, refused)

    assert desk.reserved("team=catalog") == {}
    assert desk.is_due(other)
    assert desk.admit(other) == 100
    assert desk.admit(refused) == 0
    assert desk.record(refused).awaits is Awaited.BUDGET


def test_a_job_that_lacks_budget_stands_before_nobody(stack: Stack) -> None:
    desk = Desk(stack, slots=1)
    early, later, free = (
        desk.job("b0early", max_cost=200 * INPUT, created=1.0),
        desk.job("b0early", 2, max_cost=200 * INPUT, created=1.0),
        desk.job("b0later", created=2.0),
    )
    assert desk.admit(early) == 100
    assert desk.admit(later) == desk.admit(free) == 0
    assert desk.record(later).awaits is Awaited.SLOT
    desk.pays(early, 200 * INPUT)
    desk.door.release(early)
    assert (desk.is_due(later), desk.is_due(free)) == (True, False)

    assert desk.admit(later) == 0
    assert desk.record(later).awaits is Awaited.BUDGET
    assert desk.is_due(free)
    assert desk.admit(free) == 100
