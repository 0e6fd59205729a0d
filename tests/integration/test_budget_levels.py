"""The levels of budgets, as metrics and Flower show them: the amounts that admission decides by."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import takewhile

import pytest
from tests.integration.budget_desk import INPUT, NOON, TEAM, Desk
from tests.stack import Stack

from lowtide.budgets import Period, parse_budgets
from lowtide.protocol import keys
from lowtide.store import BudgetLevel, budget_levels
from lowtide_worker.metrics import catalogue, read_snapshot

DAY = datetime.fromtimestamp(NOON, UTC).date()
NAME = "team=catalog"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("levels")) as stack:
        yield stack


def paid(stack: Stack, day: date, cost: object) -> None:
    stack.redis.hset(keys.costs(day), f"label|{NAME}|cost", str(cost))


def test_a_level_has_the_amounts_for_which_a_job_waits(stack: Stack) -> None:
    given = {NAME: {"day": "0.0001", "month": "0.0002"}, "team=idle": {"month": "3"}}
    desk = Desk(stack, budgets=given)
    running, waiting = (desk.job("b0level", number, labels=TEAM) for number in (1, 2))
    paid(stack, DAY - timedelta(days=1), 45_000)
    assert desk.admit(running) == 100
    desk.pays(running, 30 * INPUT, rows=30)

    assert desk.admit(waiting, least=100) == 0

    shortage = desk.record(waiting).shortage
    day, month, idle = budget_levels(stack.redis, parse_budgets(given), DAY)
    assert shortage
    assert (day.limit, day.spent, day.reserved) == (shortage.limit, shortage.spent, shortage.reserved)
    assert day == BudgetLevel(NAME, Period.DAY, 100_000, 30 * INPUT, 70 * INPUT, 1)
    assert month == BudgetLevel(NAME, Period.MONTH, 200_000, 30 * INPUT + 45_000, day.reserved, 1)
    assert (day.left, idle) == (25_000, BudgetLevel("team=idle", Period.MONTH, 3 * 10**9, 0, 0, 0))
    assert budget_levels(stack.redis, parse_budgets(given), DAY + timedelta(days=1))[0].spent == 0


def test_damaged_keys_of_one_budget_leave_the_others(stack: Stack) -> None:
    stack.empty_redis()
    budgets = parse_budgets({"team=odd": {"day": 1}, NAME: {"month": 2}})
    paid(stack, DAY, 5)
    paid(stack, DAY - timedelta(days=1), "many")
    stack.redis.set(keys.costs(DAY - timedelta(days=2)), "none")
    stack.redis.set(keys.reserved("team=odd"), "none")
    stack.redis.set(keys.waiting_for("team=odd"), "none")
    stack.redis.hset(keys.reserved(NAME), mapping={"b0gone-1": 7})

    odd, catalog = budget_levels(stack.redis, budgets, DAY)

    assert (odd.reserved, odd.waiting) == (0, 0)
    assert (catalog.spent, catalog.reserved) == (5, 0)


def test_five_hundred_budgets_cost_a_scrape_less_than_a_hundred_commands(stack: Stack) -> None:
    stack.empty_redis()
    given = {f"team={number}": {"day": 1, "month": 2} for number in range(500)}
    settings = stack.worker_settings(budgets=given)
    read_snapshot(stack.redis, settings)  # loads the scripts

    with stack.redis.monitor() as monitor:
        found = read_snapshot(stack.redis, settings)
        stack.redis.echo("over")
        said = list(takewhile(lambda one: not one["command"].startswith("ECHO"), monitor.listen()))

    assert len([one for one in said if one["client_type"] != "lua"]) < 100
    assert found.values[catalogue.BUDGET_LIMIT]["team=499", "month"] == 2
    assert found.values[catalogue.BUDGET_WAITING_JOBS]["team=0",] == 0
    assert not read_snapshot(stack.redis, stack.worker_settings()).budgets
