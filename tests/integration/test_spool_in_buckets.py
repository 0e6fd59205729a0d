"""Batches whose spool is in an object store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from tests.faulty_http import Fault, FaultyProxy
from tests.integration.blurbs import MODEL, blurbs
from tests.object_stores import new_bucket, object_store
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import BatchNotFound, BatchState
from lowtide.spool import Spool

_ADDRESS = {"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL"}
_FAULTS: tuple[Fault, ...] = ("cut after", 503, "half an answer", "cut before")


class Bucketed(Stack):
    """A stack whose spool is a bucket behind a proxy."""

    proxy: FaultyProxy


@pytest.fixture(scope="module", params=["gs", "s3"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucketed]:
    """With a worker."""
    folder = tmp_path_factory.mktemp(request.param)
    with (
        object_store(request.param, folder) as variables,
        FaultyProxy(variables[_ADDRESS[request.param]]) as proxy,
        pytest.MonkeyPatch.context() as patch,
    ):
        variables[_ADDRESS[request.param]] = proxy.url
        for name, value in variables.items():
            patch.setenv(name, value)
        variables["LOWTIDE_SPOOL_URL"] = f"{new_bucket(request.param)}/spool"
        with Bucketed(folder / "stack", None, cloud=None, **variables) as stack:
            stack.proxy = proxy
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


def test_lost_replies_and_errors_of_the_store_cost_no_result_and_no_second_answer(stack: Bucketed) -> None:
    stack.proxy.faults[:] = [fault for one in _FAULTS * 30 for fault in (one, None, None)]
    batch = stack.queue().submit(blurbs(60), model=MODEL)
    status = batch.wait(timeout=90)
    struck = 360 - len(stack.proxy.faults)
    stack.proxy.faults.clear()

    assert struck > len(_FAULTS) * 3, "too few requests to meet each fault"
    assert (status.state, status.succeeded, status.duplicates) == (BatchState.COMPLETED, 60, 0)
    assert Counter(result.key for result in batch.results()) == Counter(request.key for request in blurbs(60))
    jobs = [job for job in stack.emulator.jobs(keys=True) if batch.id in job.display_name]
    assert {key: n for job in jobs for key, n in Counter(job.billed_keys).items() if n > 1} == {}
    assert sum(job.billed for job in jobs) == 60
