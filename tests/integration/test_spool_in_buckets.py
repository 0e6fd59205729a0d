"""Batches whose spool is in an object store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.object_stores import new_bucket, object_store
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import BatchNotFound, BatchState
from lowtide.spool import Spool


@pytest.fixture(scope="module", params=["gs", "s3"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """With a worker."""
    folder = tmp_path_factory.mktemp(request.param)
    with object_store(request.param, folder) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        variables["LOWTIDE_SPOOL_URL"] = f"{new_bucket(request.param)}/spool"
        with Stack(folder / "stack", None, cloud=None, **variables) as stack:
            stack.worker()
            yield stack


@pytest.mark.parametrize("mode", ["file", "inline"])
def test_every_request_gets_its_result_and_a_deleted_batch_leaves_nothing(stack: Stack, mode: str) -> None:
    batch = stack.queue().submit(blurbs(300), model=MODEL, mode=mode)

    status = batch.wait(timeout=60)
    results = {result.key: result.text for result in batch.results()}

    assert (status.state, status.succeeded) == (BatchState.COMPLETED, 300)
    assert sorted(results) == sorted(request.key for request in blurbs(300))
    assert all(text and f"article {key.removeprefix('sku-')}" in text for key, text in results.items())
    spool = Spool(stack.env["LOWTIDE_SPOOL_URL"])
    assert spool.names(f"batches/{batch.id}")
    batch.delete()
    wait_until(lambda: not spool.names(f"batches/{batch.id}"))
    with pytest.raises(BatchNotFound):
        wait_until(lambda: batch.status() is None)


def test_a_worker_that_is_killed_loses_nothing(stack: Stack) -> None:
    batch = stack.queue().submit(blurbs(400), model=MODEL)
    wait_until(lambda: batch.status().jobs)
    stack.workers[-1].kill()
    stack.worker()

    assert batch.wait(timeout=90).succeeded == 400
    assert len({result.key for result in batch.results()}) == 400
