"""Budgets of a label by day and month: what was paid in a period counts, and the next one begins anew."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tests.integration.budget_desk import INPUT, NOON, TEAM, Desk, at
from tests.stack import Stack

from lowtide.budgets import Period
from lowtide.protocol import keys
from lowtide_worker.state import (
    HeldJob,
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("periods")) as stack:
        yield stack


def test_a_label_has_its_budget_over_all_its_batches_and_says_when_it_begins_anew(stack: Stack) -> None:
    desk = Desk(stack, budgets={"team=catalog": {"day": "0.000150", "month": "1"}})
    first, second, third = (desk.job(f"b0day{n}", labels=TEAM) for n in (1, 2, 3))
    other = desk.job("b0other", labels={"team": "search"})

    assert desk.admit(first) == desk.admit(second) == desk.admit(other) == 100
    assert desk.admit(third) == 0
    shortage = desk.record(third).shortage
    assert shortage is not None
    assert (shortage.budget, shortage.period, shortage.limit) == ("team=catalog", Period.DAY, 150_000)
    assert shortage.until == NOON + 43_200
    assert "the next day begins at 2026-11-11 00:00 UTC" in f"{shortage}"


def test_a_request_above_the_whole_budget_of_a_day_waits_and_says_that_it_never_fits(stack: Stack) -> None:
    desk = Desk(stack, budgets={"team=catalog": {"day": "0.000150", "month": "1"}})
    job = desk.job("b0never", labels=TEAM)

    assert desk.admit(job, 300, least=201) == 0
    shortage = desk.record(job).shortage
    assert shortage is not None
    assert shortage.never
    assert "may cost $0.00015075 and never fits: the whole budget team=catalog of a day is $0.00015" in f"{shortage}"


def test_a_damaged_day_of_costs_stops_no_work(stack: Stack) -> None:
    desk = Desk(stack, budgets={"team=catalog": {"month": "1"}})
    stack.redis.set(keys.costs(datetime.fromtimestamp(NOON, UTC).date()), "odd")

    assert desk.admit(desk.job("b0odd", labels=TEAM)) == 100


def test_a_budget_is_there_again_in_the_next_period(stack: Stack) -> None:
    desk = Desk(stack, budgets={"team=catalog": {"day": "0.000075", "month": "0.000200"}})
    first, second, third = (desk.job("b0turn", number, labels=TEAM) for number in (1, 2, 3))
    next_day, day_after, next_month = (NOON + days * 86_400 for days in (1, 2, 21))

    def run(job: HeldJob) -> int:
        granted = desk.admit(job)
        desk.pays(job, granted * INPUT, rows=granted)
        desk.closes(job)
        return granted

    assert run(first) == 100
    assert desk.admit(second) == 0
    assert run(at(next_day, second)) == 100
    assert desk.admit(at(day_after, third)) == 66, "the month has no more"
    assert desk.admit(at(day_after, third), 66) == 66  # after it was divided
    assert desk.admit(at(next_month, desk.job("b0turn", 4, labels=TEAM))) == 34, "the job under way holds the others"


def test_what_was_paid_before_the_clock_was_set_back_counts_in_the_month(stack: Stack) -> None:
    desk = Desk(stack, budgets={"team=catalog": {"month": "0.000150"}})
    first, second = (desk.job("b0back", number, labels=TEAM) for number in (1, 2))
    ahead = at(NOON + 86_400, first)
    assert desk.admit(ahead) == 100
    desk.pays(ahead, 100 * INPUT, rows=100)
    desk.closes(ahead)

    assert desk.admit(second) == 100

    third = desk.job("b0back", 3, labels=TEAM)
    assert desk.admit(third) == 0, "the month has no more, by whichever clock"
