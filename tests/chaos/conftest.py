"""Stacks for chaos tests: pools that many share, or one for a test alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.chaos.chaos_stack import ChaosStack
from tests.chaos.pool import StackPool
from tests.cloud import Cloud


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackPool]:
    with ExitStack() as cleanup:
        yield StackPool(tmp_path_factory.mktemp, cleanup)


@pytest.fixture(scope="session")
def vertex_pool(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackPool]:
    """The same on Vertex AI."""
    with ExitStack() as cleanup:
        yield StackPool(tmp_path_factory.mktemp, cleanup, cloud)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[ChaosStack]:
    """A stack of its own for one test, with a handler app and no other worker."""
    with ChaosStack(tmp_path) as stack:
        stack.handler_app()
        yield stack
