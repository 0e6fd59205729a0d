"""Whatever the provider does, each request ends once and is paid once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest
from tests.chaos.fault_dramas import DRAMAS, ON_VERTEX, STORIES, play
from tests.chaos.invariants import Figures
from tests.chaos.lanes import Lanes, Programme
from tests.chaos.selection import selected

from lowtide import ProviderName

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Case:
    """A drama or story, and on whose batch API it plays."""

    what: str
    provider: ProviderName

    def __str__(self) -> str:
        return f"{self.provider}: {self.what}"


CASES = [
    *(Case(what, ProviderName.GEMINI) for what in (*DRAMAS, *STORIES)),
    *(Case(what, ProviderName.VERTEX) for what in STORIES),
    *(pytest.param(Case(what, ProviderName.VERTEX), marks=pytest.mark.thorough) for what in ON_VERTEX),
]


@pytest.fixture(scope="module")
def programme(request: pytest.FixtureRequest, lanes: Lanes) -> Iterator[Programme[Figures]]:
    def run(case: Hashable) -> Figures:
        assert isinstance(case, Case)
        theirs = lanes if case.provider is ProviderName.GEMINI else on_vertex
        if drama := DRAMAS.get(case.what):
            return theirs.play(partial(play, drama), drama.running_seconds)
        return theirs.play(*STORIES[case.what])

    cases = list(selected(request, "case"))
    if any(isinstance(case, Case) and case.provider is ProviderName.VERTEX for case in cases):
        on_vertex: Lanes = request.getfixturevalue("vertex_lanes")
    programme = Programme(lanes, run)
    programme.begin(cases)
    yield programme
    programme.end()
    if figures := programme.results():
        print(f"\nProvider faults\n{sum(figures, Figures()).table()}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_request_ends_once_and_is_paid_once_when(case: Case, programme: Programme[Figures]) -> None:
    figures = programme.result(case)

    assert figures.lost == 0
    assert figures.double_counted == 0
