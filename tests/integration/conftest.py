"""One stack for each module, with one worker that takes both queues: real servers are cheap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.census import counted
from tests.cloud import Cloud
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import BatchQueue, BatchState, ProviderName

if TYPE_CHECKING:
    from tests.integration.hooked import Hooks

RUNNING = (BatchState.PENDING, BatchState.RUNNING, BatchState.CANCELLING)


@pytest.fixture(scope="module")
def vertex(tmp_path_factory: pytest.TempPathFactory, cloud: Cloud) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("vertex"), cloud=cloud) as stack:
        stack.worker()
        yield stack


@pytest.fixture(scope="module")
def provider() -> ProviderName:
    """On whose batch API a module's stacks run; one whose tests hold on both is marked with `ON_BOTH`."""
    return ProviderName.GEMINI


@pytest.fixture(scope="module")
def storage() -> str:
    """The kind of spool of a module's stacks: `folder`, or `gs` on Vertex AI, beside the objects of its jobs."""
    return "folder"


@pytest.fixture(scope="module")
def stack(
    provider: ProviderName, storage: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """With a worker."""
    cloud = _cloud(provider, request)
    with Stack(tmp_path_factory.mktemp("stack"), None, cloud=cloud, **_spool(storage, cloud)) as stack:
        stack.worker()
        yield stack


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack without a worker: singles wait."""
    with Stack(tmp_path_factory.mktemp("still")) as stack:
        yield stack


@pytest.fixture
def emptied(still: Stack) -> Stack:
    """The same, with nothing in Redis."""
    still.empty_redis()
    return still


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooks]:
    """The hooks application, for the events of a stack without a worker."""
    # The signer and the server take time to import, which most runs of a single module can do without.
    from tests.integration.hooked import receiving

    with receiving(tmp_path_factory.mktemp("hooks")) as receiver:
        yield receiver


@pytest.fixture
def hooked(receiver: Hooks) -> Hooks:
    """With a job that is polled in an hour."""
    from tests.integration.hooked import JOB, NAME, given

    receiver.stack.empty_redis()
    given(receiver.stack.redis, JOB, name=f"batches/{NAME}")
    return receiver


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> None:
    """Ends what an earlier test has left running on the module's stack: this one's faults and counts would meet it."""
    for name in sorted({"stack", "vertex"} & set(request.fixturenames)):
        stack = request.getfixturevalue(name)
        if isinstance(stack, Stack) and any(worker.alive for worker in stack.workers) and running(stack):
            end_all(stack)


def running(stack: Stack) -> bool:
    """Whether a batch or a bundle has not ended."""
    census = counted(stack.redis)
    return any(census.get(f"{kind}|{state}") for kind in ("batches", "bundles") for state in RUNNING)


def end_all(stack: Stack) -> None:
    """Cancels all batches that run, and waits until they have ended."""
    stack.emulator.set_faults([])
    queue = stack.queue()
    for batch in (batch for state in RUNNING for batch in queue.list(state=state, page_size=1000).batches):
        queue.get(batch.id).cancel()
    wait_until(lambda: not running(stack), what="what an earlier test has left ends")


@pytest.fixture
def queue(stack: Stack) -> BatchQueue:
    return stack.queue()


@pytest.fixture
def bare_stack(provider: ProviderName, storage: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    """A stack without a worker, for one test alone."""
    cloud = _cloud(provider, request)
    with Stack(tmp_path, None, cloud=cloud, **_spool(storage, cloud)) as stack:
        yield stack


def _spool(storage: str, cloud: Cloud | None) -> dict[str, str]:
    if storage == "folder":
        return {}
    assert cloud is not None
    return {"LOWTIDE_SPOOL_URL": f"gs://{cloud.new_bucket()}/spool"}


def _cloud(provider: ProviderName, request: pytest.FixtureRequest) -> Cloud | None:
    return request.getfixturevalue("cloud") if provider is ProviderName.VERTEX else None
