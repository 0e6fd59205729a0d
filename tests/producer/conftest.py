"""One stack with a worker for all that happens to producers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.proxy import RedisProxy
from tests.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("producer")
    with Stack(folder, LOWTIDE_MAX_ACTIVE_JOBS="1000", LOWTIDE_OUTPUT_GRACE_SECONDS="0.5") as stack:
        stack.worker()
        yield stack


@pytest.fixture(scope="session")
def proxy(stack: Stack) -> Iterator[RedisProxy]:
    with RedisProxy(stack.redis_server) as proxy:
        yield proxy
