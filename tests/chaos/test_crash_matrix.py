"""A worker dies by SIGKILL at every named place, and a fresh one finishes the work as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import cast

import pytest
from tests.chaos.chaos_stack import ChaosStack
from tests.chaos.crash_points import again, cases, crash_points, sharing, vertex_cases
from tests.chaos.crash_scenarios import SCENARIOS, killed, undisturbed
from tests.chaos.invariants import Figures, check
from tests.chaos.pool import Plan, StackPool
from tests.chaos.selection import selected

from lowtide import ProviderName

Case = tuple[ProviderName, tuple[str, str]]
NEVER = "no point"
"""In place of a crash point: the worker lives."""


@dataclass(frozen=True)
class Outcome:
    case: Case
    figures: Figures
    seconds: float
    """From the first worker to rest."""


def _outcome(case: Case, stack: ChaosStack) -> Outcome:
    _, (name, point) = case
    scenario = SCENARIOS[name]
    seconds, one = undisturbed(stack, scenario) if point == NEVER else killed(stack, scenario, point)
    # Whatever the point is, other threads of the worker may have been writing.
    figures = check(stack, one.all, replace(scenario.allowed, drafts=point != NEVER))
    figures.kills += point != NEVER
    return Outcome(case, figures, seconds)


def _delays(outcomes: Iterable[Outcome]) -> list[float]:
    """The time that each kill has cost, in seconds, where a run without a kill was measured too."""
    seconds = {outcome.case: outcome.seconds for outcome in outcomes}
    usual = {(provider, name): taken for (provider, (name, point)), taken in seconds.items() if point == NEVER}
    return [
        max(0.0, taken - usual[provider, name])
        for (provider, (name, point)), taken in seconds.items()
        if point != NEVER and (provider, name) in usual
    ]


TELLING = {"submit.after-plan", "deliver.after-grant", "settle.after-rest-written", "delete.after-record"}
"""Points where batches that share jobs have most to lose: tried each time, the others by `make thorough`."""
CASES = [
    *((ProviderName.GEMINI, case) for case in cases()),
    *(
        pytest.param((ProviderName.GEMINI, case), marks=() if case[1] in TELLING else pytest.mark.thorough)
        for case in sharing()
    ),
    *(
        pytest.param(case, marks=pytest.mark.thorough)
        for case in (
            *((ProviderName.GEMINI, (name, NEVER)) for name in SCENARIOS),
            *((ProviderName.VERTEX, (name, NEVER)) for name in ("plain", "answers in parts")),
            *((ProviderName.GEMINI, case) for case in again()),
            *((ProviderName.VERTEX, case) for case in vertex_cases()),
        )
    ),
]


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest, pool: StackPool) -> Iterator[Plan[Outcome]]:
    selection = list(selected(request, "case"))
    pools = {ProviderName.GEMINI: pool}
    if any(provider is ProviderName.VERTEX for provider, _ in cast("list[Case]", selection)):
        pools[ProviderName.VERTEX] = request.getfixturevalue("vertex_pool")

    def run(case: object) -> Outcome:
        provider, (name, _) = what = cast("Case", case)
        return pools[provider].run(partial(_outcome, what), SCENARIOS[name].running_seconds)

    plan = Plan(pool, run)
    plan.begin(selection)
    yield plan
    plan.end()
    if outcomes := plan.results():
        print(f"\nCrash matrix\n{sum((outcome.figures for outcome in outcomes), Figures()).table()}")
        if delays := _delays(outcomes):
            print(f"| delay by a kill, median | {median(delays):.1f} s |")
            print(f"| delay by a kill, worst | {max(delays):.1f} s |")


def test_every_crash_point_of_the_source_is_in_the_matrix() -> None:
    points = crash_points()

    assert len(points) >= 25
    assert points <= {point for _, point in cases()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}: {case[1][1]} ({case[1][0]})")
def test_the_work_goes_on_after_a_kill_at(case: Case, matrix: Plan[Outcome]) -> None:
    outcome = matrix.result(case)

    assert outcome.figures.lost == 0
    assert outcome.figures.double_counted == 0
    assert outcome.figures.billed_twice == 0
