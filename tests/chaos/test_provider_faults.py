"""Whatever the provider does, each request ends once and is paid once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from tests.chaos.fault_dramas import DRAMAS, STORIES, play
from tests.chaos.invariants import Figures
from tests.chaos.lanes import Lanes, Programme
from tests.chaos.selection import selected

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def programme(request: pytest.FixtureRequest, lanes: Lanes) -> Iterator[Programme[Figures]]:
    def run(name: object) -> Figures:
        if drama := DRAMAS.get(str(name)):
            return lanes.play(partial(play, drama), drama.running_seconds)
        return lanes.play(STORIES[str(name)])

    programme = Programme(lanes, run)
    programme.begin(selected(request, "what"))
    yield programme
    programme.end()
    if figures := programme.results():
        print(f"\nProvider faults\n{sum(figures, Figures()).table()}")


@pytest.mark.parametrize("what", [*DRAMAS, *STORIES])
def test_every_request_ends_once_and_is_paid_once_when(what: str, programme: Programme[Figures]) -> None:
    figures = programme.result(what)

    assert figures.lost == 0
    assert figures.double_counted == 0
