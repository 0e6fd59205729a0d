"""Batches whose spool is in an object store."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import cast

import pytest
from tests.faulty_http import Fault, FaultyProxy, is_batch_delete
from tests.integration.blurbs import MODEL, blurbs
from tests.object_stores import new_bucket, object_store
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch, BatchNotFound, BatchState
from lowtide.protocol import Stage, keys
from lowtide.spool import Spool

ADDRESS = {"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL"}
MOST_OPERATIONS = 12
ONE_PROCESS = ("-c", "1")
"""Each process of a worker reads an object when it first uses the spool. With one, a test knows that this is over."""
_FAULTS: tuple[Fault, ...] = ("cut after", 503, "half an answer", "cut before")


@pytest.fixture(scope="module", params=list(ADDRESS))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyProxy]:
    """A proxy before an object store, to which this process's variables lead."""
    folder = tmp_path_factory.mktemp(request.param)
    with object_store(request.param, folder) as variables, pytest.MonkeyPatch.context() as patch:
        address = ADDRESS[request.param]
        with FaultyProxy(variables[address]) as proxy:
            for name, value in (variables | {address: proxy.url}).items():
                patch.setenv(name, value)
            yield proxy


@pytest.fixture(scope="module")
def stack(store: FaultyProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """With a worker."""
    scheme = next(scheme for scheme, address in ADDRESS.items() if os.environ.get(address) == store.url)
    variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    variables[ADDRESS[scheme]] = store.url
    variables["LOWTIDE_SPOOL_URL"] = f"{new_bucket(scheme)}/spool"
    with Stack(tmp_path_factory.mktemp("stack"), None, cloud=None, **variables) as stack:
        stack.worker(*ONE_PROCESS)
        yield stack


def is_gone(batch: Batch) -> bool:
    try:
        batch.summary()
    except BatchNotFound:
        return True
    return False


def test_a_small_batch_is_a_dozen_operations_from_submit_to_delete(stack: Stack, store: FaultyProxy) -> None:
    stack.put_off_sweep()
    queue = stack.queue()
    # The first one also connects, and looks for the bucket and the installation.
    first = queue.submit(blurbs(1), model=MODEL)
    first.wait(timeout=180)
    first.delete()
    wait_until(lambda: is_gone(first), what="the first batch is deleted")
    before = len(store.requests)

    batch = queue.submit(blurbs(50), model=MODEL)
    assert batch.wait(timeout=180).succeeded == 50
    batch.delete()
    wait_until(lambda: is_gone(batch), what="the batch is deleted")

    operations = store.requests[before:]
    assert len(operations) <= MOST_OPERATIONS, "\n".join(operations)
    assert Spool(stack.env["LOWTIDE_SPOOL_URL"]).names(f"batches/{batch.id}") == []


@pytest.mark.parametrize("mode", ["file", "inline"])
def test_every_request_gets_its_result_and_a_deleted_batch_leaves_nothing(stack: Stack, mode: str) -> None:
    batch = stack.queue().submit(blurbs(300), model=MODEL, mode=mode)

    status = batch.wait(timeout=180)
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
    stack.worker(*ONE_PROCESS)

    assert batch.wait(timeout=180).succeeded == 400
    assert len({result.key for result in batch.results()}) == 400


def test_a_store_that_is_away_in_the_middle_of_a_batch_costs_nothing(stack: Stack, store: FaultyProxy) -> None:
    with stack.held_jobs():
        batch = stack.queue().submit(blurbs(100), model=MODEL)
        wait_until(lambda: any(job.name for job in batch.status().jobs), what="the job is created")
        before = len(store.requests)
        store.rule = lambda _: "cut before"
    try:
        wait_until(lambda: len(store.requests) - before >= 6, timeout=180, what="the worker tries")
        assert not batch.summary().finished
    finally:
        store.rule = lambda _: None

    assert batch.wait(timeout=180).succeeded == 100
    assert len({result.key for result in batch.results()}) == 100
    assert len([job for job in stack.emulator.jobs() if batch.id in job.display_name]) <= 1
    assert len(batch.status().jobs) == 1


def test_a_store_that_refuses_deletes_is_named_once_and_asked_seldom(stack: Stack, store: FaultyProxy) -> None:
    batch = stack.queue().submit(blurbs(3), model=MODEL)
    batch.wait(timeout=180)
    refused: list[str] = []

    def refuse(request: str) -> Fault | None:
        if not (request.startswith("DELETE") or is_batch_delete(request)):
            return None
        refused.append(request)
        return 403

    store.rule = refuse
    try:
        batch.delete()
        wait_until(lambda: batch.status().problems, what="the problem is shown")
        tries = len(refused)
        other = stack.queue().submit(blurbs(1), model=MODEL)
        other.wait(timeout=180)
    finally:
        store.rule = lambda _: None

    status = batch.status()
    assert status.state is BatchState.DELETING
    assert "cannot be deleted" in status.problems[0]
    assert "the account needs" in status.problems[0]
    assert len(refused) == tries
    log = next(worker for worker in stack.workers if batch.id in worker.text).text
    assert log.count(f"batch {batch.id} cannot be deleted") == 1
    clock = keys.clock(Stage.DELETE.queue)
    assert cast("float", stack.redis.zscore(clock, keys.batch_member(batch.id))) > time.time() + 3000

    stack.redis.zadd(clock, {str(keys.batch_member(batch.id)): 0})
    wait_until(lambda: is_gone(batch), what="the batch is deleted, now that it may be")


def test_lost_replies_and_errors_of_the_store_cost_no_result_and_no_second_answer(
    stack: Stack, store: FaultyProxy
) -> None:
    store.faults[:] = [fault for one in _FAULTS * 30 for fault in (one, None, None)]
    batch = stack.queue().submit(blurbs(60), model=MODEL)
    status = batch.wait(timeout=180)
    struck = 360 - len(store.faults)
    store.faults.clear()

    assert struck > len(_FAULTS) * 3, "too few requests to meet each fault"
    assert (status.state, status.succeeded, status.duplicates) == (BatchState.COMPLETED, 60, 0)
    assert Counter(result.key for result in batch.results()) == Counter(request.key for request in blurbs(60))
    jobs = [job for job in stack.emulator.jobs(keys=True) if batch.id in job.display_name]
    assert {key: n for job in jobs for key, n in Counter(job.billed_keys).items() if n > 1} == {}
    assert sum(job.billed for job in jobs) == 60
