"""One forge for all chaos tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.chaos.forge import Forge
from tests.chaos.lanes import Lanes
from tests.chaos.world import World
from tests.cloud import Cloud


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    forge = Forge()
    yield forge
    forge.close()


@pytest.fixture(scope="session")
def lanes(forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    with ExitStack() as cleanup:
        yield Lanes(forge, tmp_path_factory.mktemp, cleanup)


@pytest.fixture(scope="session")
def vertex_lanes(forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    """The same on Vertex AI."""
    with ExitStack() as cleanup:
        cloud = cleanup.enter_context(Cloud(tmp_path_factory.mktemp("cloud")))
        yield Lanes(forge, tmp_path_factory.mktemp, cleanup, cloud)


@pytest.fixture
def world(tmp_path: Path, forge: Forge) -> Iterator[World]:
    """A world of its own for one test, with a shop and no other worker."""
    with World(tmp_path, forge) as world:
        world.shop()
        yield world
