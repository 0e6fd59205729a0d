"""One fork server for all chaos tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.chaos.chaos_stack import ChaosStack
from tests.chaos.fork_server import ForkServer
from tests.chaos.pool import StackPool
from tests.cloud import Cloud


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    fork_server = ForkServer()
    yield fork_server
    fork_server.close()


@pytest.fixture(scope="session")
def pool(fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackPool]:
    with ExitStack() as cleanup:
        yield StackPool(fork_server, tmp_path_factory.mktemp, cleanup)


@pytest.fixture(scope="session")
def vertex_pool(fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackPool]:
    """The same on Vertex AI."""
    with ExitStack() as cleanup:
        cloud = cleanup.enter_context(Cloud(tmp_path_factory.mktemp("cloud")))
        yield StackPool(fork_server, tmp_path_factory.mktemp, cleanup, cloud)


@pytest.fixture
def stack(tmp_path: Path, fork_server: ForkServer) -> Iterator[ChaosStack]:
    """A stack of its own for one test, with a handler app and no other worker."""
    with ChaosStack(tmp_path, fork_server) as stack:
        stack.handler_app()
        yield stack
