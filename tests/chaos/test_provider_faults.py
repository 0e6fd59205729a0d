"""Whatever the provider does, each request ends once and is paid once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest
from tests.chaos.fault_procedures import PROCEDURES
from tests.chaos.fault_scenarios import ON_VERTEX, SCENARIOS
from tests.chaos.faults import run_scenario
from tests.chaos.invariants import Figures
from tests.chaos.pool import Plan, StackPool
from tests.chaos.selection import selected

from lowtide import ProviderName


@dataclass(frozen=True)
class Case:
    """A scenario or procedure, and the batch API on which it runs."""

    what: str
    provider: ProviderName

    def __str__(self) -> str:
        return f"{self.provider}: {self.what}"


CASES = [
    *(Case(what, ProviderName.GEMINI) for what in (*SCENARIOS, *PROCEDURES)),
    *(pytest.param(Case(what, ProviderName.VERTEX), marks=pytest.mark.thorough) for what in (*PROCEDURES, *ON_VERTEX)),
]


@pytest.fixture(scope="module")
def plan(request: pytest.FixtureRequest, pool: StackPool) -> Iterator[Plan[Figures]]:
    def run(case: Hashable) -> Figures:
        assert isinstance(case, Case)
        theirs = pool if case.provider is ProviderName.GEMINI else on_vertex
        if scenario := SCENARIOS.get(case.what):
            return theirs.run(partial(run_scenario, scenario), scenario.running_seconds)
        return theirs.run(*PROCEDURES[case.what])

    cases = list(selected(request, "case"))
    if any(isinstance(case, Case) and case.provider is ProviderName.VERTEX for case in cases):
        on_vertex: StackPool = request.getfixturevalue("vertex_pool")
    plan = Plan(pool, run)
    plan.begin(cases)
    yield plan
    plan.end()
    if figures := plan.results():
        print(f"\nProvider faults\n{sum(figures, Figures()).table()}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_request_ends_once_and_is_paid_once_when(case: Case, plan: Plan[Figures]) -> None:
    figures = plan.result(case)

    assert figures.lost == 0
    assert figures.double_counted == 0
