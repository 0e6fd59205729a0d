"""A batch as a thing that one finds again, waits for, cancels and deletes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.integration.blurbs import MODEL, ON_BOTH, blurbs
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import (
    BatchNotFinished,
    BatchNotFound,
    BatchQueue,
    BatchState,
    IdempotencyConflict,
    InstallationMismatch,
    JobState,
    ResultStatus,
    SpoolError,
    WaitTimeout,
)

pytestmark = ON_BOTH


def test_the_same_idempotency_key_and_content_is_the_same_batch(stack: Stack, queue: BatchQueue) -> None:
    first = queue.submit(blurbs(3), model=MODEL, idempotency_key="catalog-1")
    again = queue.submit(blurbs(3), model=MODEL, idempotency_key="catalog-1")

    assert again.id == first.id
    assert first.wait(timeout=180).succeeded == 3
    assert len(first.status().jobs) == 1
    # What the second submit wrote to the spool is gone.
    folders = {path.name for path in (stack.directory / "spool" / "batches").iterdir()}
    assert folders == {status.id for status in queue.list(page_size=100).batches}


def test_the_same_idempotency_key_with_other_content_is_an_error(queue: BatchQueue) -> None:
    first = queue.submit(blurbs(3), model=MODEL, idempotency_key="catalog-2")

    with pytest.raises(IdempotencyConflict, match=first.id):
        queue.submit(blurbs(4), model=MODEL, idempotency_key="catalog-2")


def test_provider_job_and_input_file_are_deleted_once_the_results_are_safe(stack: Stack, queue: BatchQueue) -> None:
    batch = queue.submit(blurbs(2), model=MODEL)
    status = batch.wait(timeout=180)
    name = status.jobs[0].name

    def deleted() -> bool:
        return any(job.name == name and job.deleted for job in stack.emulator.jobs())

    wait_until(deleted, what="the provider's job is deleted")
    assert len(list(batch.results())) == 2


def test_results_that_are_not_all_there_are_an_error_not_an_end(
    stack: Stack, queue: BatchQueue, tmp_path: Path
) -> None:
    batch = queue.submit(blurbs(2), model=MODEL)
    batch.wait(timeout=180)
    elsewhere = BatchQueue(queue.settings.model_copy(update={"spool_url": str(tmp_path)}))

    with pytest.raises(InstallationMismatch):
        list(elsewhere.get(batch.id).results())
    folder = stack.directory / "spool" / "batches" / batch.id / "results"
    [file] = folder.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(SpoolError, match=f"{file.name} ends within a line"):
        list(batch.results())
    file.write_bytes(content[: content.index(b"\n") + 1])
    with pytest.raises(SpoolError, match="1 of 2 results"):
        list(batch.results())
    shutil.rmtree(folder)
    with pytest.raises(SpoolError, match=f"0 of 2 results.*restore batches/{batch.id}/results/{file.name} from"):
        list(batch.results())


def test_files_that_others_leave_among_the_results_are_no_results(stack: Stack, queue: BatchQueue) -> None:
    batch = queue.submit(blurbs(2), model=MODEL)
    batch.wait(timeout=60)
    folder = stack.directory / "spool" / "batches" / (batch.status().bundle or batch.id) / "results"
    [file] = folder.iterdir()
    own = stack.directory / "spool" / "batches" / batch.id / "results"
    own.mkdir(exist_ok=True)
    shutil.copy(file, own / ".nfs0000000000000001")
    (own / ".DS_Store").write_bytes(b"\0")

    assert len(list(batch.results())) == 2


def test_a_batch_whose_failed_job_was_replaced_has_no_error(bare_stack: Stack) -> None:
    bare_stack.emulator.set_faults([{"on": "job", "kind": "fail", "times": 1, "params": {"code": 14}}])
    bare_stack.worker("-P", "threads", "-c", "2")

    status = bare_stack.queue().submit(blurbs(2), model=MODEL).wait(timeout=180)

    assert (status.succeeded, status.error) == (2, None)
    [failed, _] = status.jobs
    assert failed.error is not None, "the job keeps its own"


def test_a_cancelled_batch_keeps_what_is_done_and_cancels_the_rest(bare_stack: Stack) -> None:
    bare_stack.emulator.set_faults([{"on": "job", "kind": "stuck_running"}])
    bare_stack.worker()
    batch = bare_stack.queue().submit(blurbs(5), model=MODEL)
    wait_until(lambda: any(j.state is JobState.RUNNING for j in batch.status().jobs), what="the job runs")

    batch.cancel()

    status = batch.wait(timeout=180)
    assert status.state is BatchState.CANCELLED
    assert (status.cancelled, status.answered, status.ended) == (5, 0, 5)
    assert status.error is None
    assert [job.error for job in status.jobs] == [None]
    assert status.reasons == {"CANCELLED": 5}
    assert {result.status for result in batch.results()} == {ResultStatus.CANCELLED}
    wait_until(lambda: not any(j.live for j in bare_stack.emulator.jobs()), what="nothing runs at the provider")


def test_a_batch_cancelled_before_any_worker_saw_it_ends_cancelled(bare_stack: Stack) -> None:
    batch = bare_stack.queue().submit(blurbs(5), model=MODEL)
    batch.cancel()
    with pytest.raises(BatchNotFinished, match="wait until it is cancelled before"):
        batch.delete()

    bare_stack.worker()

    assert batch.wait(timeout=180).cancelled == 5
    assert bare_stack.emulator.jobs() == []


def test_a_finished_batch_can_be_deleted_with_all_it_left(stack: Stack, queue: BatchQueue) -> None:
    with stack.held_jobs():
        batch = queue.submit(blurbs(2), model=MODEL, idempotency_key="to-be-deleted")
        with pytest.raises(BatchNotFinished):
            batch.delete()
    batch.wait(timeout=180)

    batch.delete()

    def gone() -> bool:
        try:
            batch.status()
        except BatchNotFound:
            return True
        return False

    wait_until(gone, what="the batch is gone")
    assert not (stack.directory / "spool" / "batches" / batch.id).exists()
    assert not list(stack.redis.scan_iter(f"*{batch.id}*"))
    assert not any(batch.id.encode() in member for member in stack.redis.zrange("lowtide:clock:lowtide.jobs", 0, -1))
    assert queue.submit(blurbs(2), model=MODEL, idempotency_key="to-be-deleted").id != batch.id


def test_batches_are_listed_newest_first_page_by_page(bare_stack: Stack) -> None:
    queue = bare_stack.queue()
    ids = [queue.submit(blurbs(1), model=MODEL).id for _ in range(7)]

    pages: list[list[str]] = []
    token = None
    while True:
        page = queue.list(page_size=3, page_token=token)
        pages.append([status.id for status in page.batches])
        token = page.next_page_token
        if token is None:
            break

    assert [len(page) for page in pages] == [3, 3, 1]
    assert [batch_id for page in pages for batch_id in page] == ids[::-1]
    assert len(queue.list(state="pending").batches) == 7
    assert queue.list(state=BatchState.COMPLETED).batches == []


def test_waiting_ends_with_an_error_when_the_time_is_over(bare_stack: Stack) -> None:
    batch = bare_stack.queue().submit(blurbs(1), model=MODEL)

    with pytest.raises(WaitTimeout, match="0 of 1"):
        batch.wait(timeout=0.1)


def test_an_unknown_batch_is_not_found(queue: BatchQueue) -> None:
    for batch_id in ("b00000000000000000000", "../../etc", "", "x y"):
        with pytest.raises(BatchNotFound):
            queue.get(batch_id)
