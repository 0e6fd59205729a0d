"""Whatever happens to processes, Redis and the spool, each request ends once and is paid once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.chaos import (
    memory_dramas,
    message_dramas,
    process_dramas,
    redis_dramas,
    spool_dramas,
    surroundings_dramas,
)
from tests.chaos.invariants import Figures
from tests.chaos.lanes import Lanes, Programme
from tests.chaos.selection import selected

_ROOMS = (process_dramas, redis_dramas, message_dramas, spool_dramas, memory_dramas, surroundings_dramas)
DRAMAS = {name: drama for room in _ROOMS for name, drama in room.DRAMAS.items()}
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def programme(request: pytest.FixtureRequest, lanes: Lanes) -> Iterator[Programme[Figures]]:
    programme = Programme(lanes, lambda name: lanes.play(DRAMAS[str(name)]))
    programme.begin(selected(request, "what"))
    yield programme
    programme.end()
    if figures := programme.results():
        print(f"\nInfrastructure faults\n{sum(figures, Figures()).table()}")


@pytest.mark.parametrize("what", DRAMAS)
def test_every_request_ends_once_and_is_paid_once_when(what: str, programme: Programme[Figures]) -> None:
    figures = programme.result(what)

    assert figures.lost == 0
    assert figures.double_counted == 0
