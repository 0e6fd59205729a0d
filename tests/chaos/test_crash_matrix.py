"""A worker dies by SIGKILL at every named place, and a fresh one finishes the work as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from statistics import median
from threading import Lock
from typing import cast

import pytest
from tests.chaos.chaos_stack import ChaosStack
from tests.chaos.crash_points import again, cases, crash_points, sharing, vertex_cases
from tests.chaos.crash_scenarios import SCENARIOS, Scenario, killed, undisturbed
from tests.chaos.invariants import Figures, check
from tests.chaos.pool import Plan, StackPool
from tests.chaos.selection import selected

from lowtide import ProviderName


@dataclass(frozen=True)
class Outcome:
    figures: Figures
    delay: float
    """The time that the kill has cost, in seconds."""


class Matrix:
    """Runs a scenario once without a kill, then with a kill at each of its points."""

    def __init__(self, pool: StackPool) -> None:
        self._pool = pool
        self._lock = Lock()
        self._undisturbed: dict[str, Future[float]] = {}

    def run(self, case: object) -> Outcome:
        """One case: scenario and crash point."""
        name, point = cast("tuple[str, str]", case)
        scenario = SCENARIOS[name]
        usual = self._usual_seconds(name, scenario)
        outcome = self._pool.run(partial(_killed, scenario, point), scenario.running_seconds)
        return Outcome(outcome.figures, max(0.0, outcome.delay - usual))

    def _usual_seconds(self, name: str, scenario: Scenario) -> float:
        with self._lock:
            mine = name not in self._undisturbed
            future = self._undisturbed.setdefault(name, Future())
        if mine:
            try:
                future.set_result(self._pool.run(partial(_undisturbed, scenario), scenario.running_seconds))
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()


def _undisturbed(scenario: Scenario, stack: ChaosStack) -> float:
    seconds, one = undisturbed(stack, scenario)
    check(stack, one.all, scenario.allowed)
    return seconds


def _killed(scenario: Scenario, point: str, stack: ChaosStack) -> Outcome:
    seconds, one = killed(stack, scenario, point)
    figures = check(stack, one.all, scenario.allowed)
    figures.kills += 1
    return Outcome(figures, seconds)


Case = tuple[ProviderName, tuple[str, str]]
CASES = [
    *((ProviderName.GEMINI, case) for case in (*cases(), *sharing())),
    *(
        pytest.param(case, marks=pytest.mark.thorough)
        for case in (
            *((ProviderName.GEMINI, case) for case in again()),
            *((ProviderName.VERTEX, case) for case in vertex_cases()),
        )
    ),
]


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest, pool: StackPool) -> Iterator[Plan[Outcome]]:
    selection = list(selected(request, "case"))
    matrices = {ProviderName.GEMINI: Matrix(pool)}
    if any(provider is ProviderName.VERTEX for provider, _ in cast("list[Case]", selection)):
        matrices[ProviderName.VERTEX] = Matrix(request.getfixturevalue("vertex_pool"))

    def run(case: object) -> Outcome:
        provider, what = cast("Case", case)
        return matrices[provider].run(what)

    plan = Plan(pool, run)
    plan.begin(selection)
    yield plan
    plan.end()
    if outcomes := plan.results():
        figures = sum((outcome.figures for outcome in outcomes), Figures())
        delays = [outcome.delay for outcome in outcomes]
        print(f"\nCrash matrix\n{figures.table()}\n| delay by a kill, median | {median(delays):.1f} s |")
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
    # The lease of a dead worker is one second here, and so is the wait after a create of unknown outcome: it went on by
    # itself and was not found by a watch of minutes. How soon, on a machine left alone, is in docs/reliability.md.
    assert outcome.delay < 60
