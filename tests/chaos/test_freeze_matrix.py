"""A worker is frozen at every named place until another has done its work; when it goes on, it changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import cast

import pytest
from tests.chaos.crash_points import again, cases
from tests.chaos.crash_scenarios import SCENARIOS
from tests.chaos.freezing import frozen
from tests.chaos.invariants import Figures
from tests.chaos.pool import Plan, StackPool
from tests.chaos.selection import selected

Case = tuple[str, str]
TELLING = {
    "submit.before-plan",
    "create.after-admission",
    "create.before-call",
    "collect.after-piece-complete",
    "deliver.after-grant",
    "settle.after-rest-written",
    "clean.after-begin",
    "delete.after-provider",
}
"""Points where a late worker has most to spoil: these are tried each time, the others by `make chaos`."""
CASES = [
    pytest.param((scenario, point), marks=() if point in TELLING else pytest.mark.thorough)
    for scenario, point in (*cases(), *again())
]


@pytest.fixture(scope="module")
def plan(request: pytest.FixtureRequest, pool: StackPool) -> Iterator[Plan[Figures]]:
    def run(case: object) -> Figures:
        name, point = cast("Case", case)
        scenario = SCENARIOS[name]
        return pool.run(partial(frozen, scenario=scenario, point=point), scenario.running_seconds)

    plan = Plan(pool, run)
    plan.begin(selected(request, "case"))
    yield plan
    plan.end()
    if figures := plan.results():
        print(f"\nFreeze matrix\n{sum(figures, Figures()).table()}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]} ({case[0]})")
def test_nothing_changes_when_a_worker_thaws_that_was_frozen_at(case: Case, plan: Plan[Figures]) -> None:
    figures = plan.result(case)

    assert figures.lost == 0
    assert figures.double_counted == 0
    assert figures.billed_twice == 0
