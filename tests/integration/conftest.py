"""One stack for each module, with one worker that takes both queues: real servers are cheap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.stack import Stack

from lowtide import BatchQueue


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        stack.worker()
        yield stack


@pytest.fixture
def queue(stack: Stack) -> BatchQueue:
    return stack.queue()


@pytest.fixture
def bare_stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack without a worker, for one test alone."""
    with Stack(tmp_path) as stack:
        yield stack
