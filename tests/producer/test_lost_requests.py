"""A batch whose files are gone ends with an error; it can be cancelled and deleted, and submitted again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.producer.points import COUNT, MODEL, happens, requests
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch, BatchNotFound, BatchState, IdempotencyConflict


def _cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1])


def _replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def replace(folder: Path) -> None:
        (folder / "index.bin").unlink()
        make(folder / "index.bin")

    return replace


_FOLDER = _replaced(lambda place: place.mkdir())
SMALL: dict[str, Callable[[Path], object]] = {
    "all files are gone": shutil.rmtree,
    "the file is gone": lambda folder: (folder / "index.bin").unlink(),
    "the file is cut": _cut("index.bin"),
    "the file is another's": lambda folder: (folder / "index.bin").write_bytes(bytes(1000)),
    "the file is a folder": _FOLDER,
    "the file is a pipe": _replaced(os.mkfifo),
    "the file is a link out of the spool": _replaced(lambda place: place.symlink_to("/dev/null")),
}
LARGE: dict[str, Callable[[Path], object]] = {
    "the index is gone": lambda folder: (folder / "index.bin").unlink(),
    "the index is cut": _cut("index.bin"),
    "the keys are gone": lambda folder: (folder / "keys.jsonl").unlink(),
    "the keys are cut": _cut("keys.jsonl"),
    "the lines are gone": lambda folder: (folder / "requests.jsonl").unlink(),
    "the lines are cut": _cut("requests.jsonl"),
}


def damaged(stack: Stack, damage: Callable[[Path], object], key: str) -> Batch:
    """A batch whose files are damaged after it is recorded, and before a worker can look."""
    queue = stack.queue()

    def spoil() -> None:
        [folder] = set((stack.directory / "spool" / "batches").iterdir()) - before
        damage(folder)

    before = set((stack.directory / "spool" / "batches").glob("*"))
    with happens("before the message", spoil):
        return queue.submit(requests(key), model=MODEL, idempotency_key=key)


def is_gone(batch: Batch) -> bool:
    try:
        batch.summary()
    except BatchNotFound:
        return True
    return False


@pytest.fixture(scope="module")
def batches(stack: Stack) -> dict[str, Batch]:
    """One of each, waiting for their end at the same time."""
    small = {name: damaged(stack, damage, f"lost, {name}") for name, damage in SMALL.items()}
    with pytest.MonkeyPatch.context() as patch:
        # So that few requests are written as many are.
        patch.setattr("lowtide.spool.writer.PACKED_BYTES", 0)
        return small | {name: damaged(stack, damage, f"lost, {name}") for name, damage in LARGE.items()}


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_a_batch_without_its_files_ends_with_an_error(stack: Stack, batches: dict[str, Batch], name: str) -> None:
    batch = batches[name]

    status = batch.wait(timeout=180)

    assert (status.state, status.failed, status.settled) == (BatchState.FAILED, COUNT, COUNT)
    assert status.error is not None
    assert status.error.reason == "REQUESTS_LOST"
    assert list(batch.results()) == []
    assert not [job for job in stack.emulator.jobs() if batch.id in job.display_name]


def test_a_batch_that_lost_its_files_is_submitted_again_under_its_key_and_deleted(stack: Stack) -> None:
    key = "lost, and submitted again"
    lost = damaged(stack, shutil.rmtree, key)
    lost.wait(timeout=180)

    again = stack.queue().submit(requests(key), model=MODEL, idempotency_key=key)
    lost.delete()

    wait_until(lambda: is_gone(lost), what="the batch is deleted")
    assert again.wait(timeout=180).succeeded == COUNT
    assert stack.queue().submit(requests(key), model=MODEL, idempotency_key=key).id == again.id


def test_a_batch_that_lost_its_files_can_be_cancelled(stack: Stack) -> None:
    lost = damaged(stack, shutil.rmtree, "lost, and cancelled")
    lost.cancel()

    status = lost.wait(timeout=180)

    assert (status.state, status.cancelled) == (BatchState.CANCELLED, COUNT)


def test_a_batch_that_loses_its_files_before_its_job_is_created_can_be_cancelled(stack: Stack) -> None:
    stack.emulator.set_faults([{"on": "batches.create", "kind": "status", "params": {"code": 429}}])
    try:
        batch = stack.queue().submit(requests("lost, and planned"), model=MODEL)
        wait_until(lambda: batch.status().problems, what="the job is refused")
        shutil.rmtree(stack.directory / "spool" / "batches" / batch.id)
        batch.cancel()
        status = batch.wait(timeout=180)
    finally:
        stack.emulator.set_faults([])

    assert status.error is not None
    assert (status.state, status.cancelled, status.error.reason) == (BatchState.CANCELLED, COUNT, "REQUESTS_LOST")


def _filled(folder: Path) -> None:
    file = folder / "index.bin"
    file.write_bytes(b"\xaa" * file.stat().st_size)


LATER: dict[str, Callable[[Path], object]] = {
    "the file is gone": lambda folder: (folder / "index.bin").unlink(),
    "the file is another's": _filled,
    "the file is a folder": _FOLDER,
}


def has_job(batch: Batch) -> bool:
    return any(job.name for job in batch.status().jobs)


def damaged_later(stack: Stack, tag: str, **options: Any) -> list[Batch]:
    """Batches whose files are damaged while their jobs run, each in another way."""
    with stack.held_jobs():
        found = [stack.queue().submit(requests(f"{tag}, {name}"), model=MODEL, **options) for name in LATER]
        for batch, damage in zip(found, LATER.values(), strict=True):
            wait_until(partial(has_job, batch), what="the job is created")
            damage(stack.directory / "spool" / "batches" / batch.id)
    return found


def is_cancelled(stack: Stack, bundle: str) -> bool:
    return stack.redis.hget(f"lowtide:batch:{bundle}", "state") == b"cancelled"


def stands_still(batch: Batch) -> bool:
    return "cannot be stored" in str(batch.status().problems)


def pass_deadline(stack: Stack, batch_id: str) -> None:
    stack.redis.hset(f"lowtide:batch:{batch_id}", "deadline", "1")


def test_a_batch_that_loses_its_files_while_its_job_runs_says_so_and_ends_on_time(stack: Stack) -> None:
    found = damaged_later(stack, "lost, and running", share=False)
    for batch in found:
        wait_until(partial(stands_still, batch), what="it says so")
        assert "cannot be stored" in str(batch.summary().problems)
    unwanted, late, odd = found
    unwanted.cancel()
    odd.cancel()
    pass_deadline(stack, late.id)

    ends = unwanted.wait(timeout=180), late.wait(timeout=180), odd.wait(timeout=180)

    assert [end.state for end in ends] == [BatchState.CANCELLED, BatchState.EXPIRED, BatchState.CANCELLED]
    assert [end.settled for end in ends] == [COUNT] * 3
    for end in ends:
        assert end.error is not None
        assert end.error.reason == "REQUESTS_LOST"
        assert (end.problems, end.quarantined, end.unpriced, bool(end.paid_cost)) == ([], COUNT, 0, True)


def _linked(folder: Path, elsewhere: Path) -> None:
    elsewhere.mkdir()
    (folder / "results").symlink_to(elsewhere)


def _linked_file(folder: Path, elsewhere: Path) -> None:
    elsewhere.write_bytes(b"not ours")
    (folder / "results").mkdir()
    (folder / "results" / "00001-0000000.jsonl").symlink_to(elsewhere)


@pytest.mark.parametrize("replace", [_linked, _linked_file], ids=["the folder", "the file"])
def test_a_batch_whose_results_lead_out_of_the_spool_says_so_and_ends_on_time(
    stack: Stack, tmp_path: Path, replace: Callable[[Path, Path], None]
) -> None:
    with stack.held_jobs():
        batch = stack.queue().submit(requests(f"lost, {replace.__name__}"), model=MODEL, share=False)
        wait_until(partial(has_job, batch), what="the job is created")
        replace(stack.directory / "spool" / "batches" / batch.id, tmp_path / "elsewhere")
    wait_until(partial(stands_still, batch), what="it says so")
    assert "leads out of the spool" in str(batch.status().problems)
    batch.cancel()

    end = batch.wait(timeout=180)

    assert (end.state, end.settled, end.cancelled, end.problems) == (BatchState.CANCELLED, COUNT, COUNT, [])
    elsewhere = tmp_path / "elsewhere"
    assert elsewhere.read_bytes() == b"not ours" if elsewhere.is_file() else not list(elsewhere.iterdir())
    batch.delete()
    wait_until(lambda: is_gone(batch), what="the batch is deleted")
    assert elsewhere.exists()


def test_the_batches_of_a_bundle_that_loses_its_files_while_its_job_runs_end_on_time(stack: Stack) -> None:
    with stack.held_jobs():
        found = [stack.queue().submit(requests(f"lost, with {n}"), model=MODEL, share=True) for n in range(2)]
        for batch in found:
            wait_until(partial(has_job, batch), what="the job is created")
        bundles = {str(batch.status().bundle) for batch in found}
        for bundle in bundles:
            _filled(stack.directory / "spool" / "batches" / bundle)
    for batch in found:
        wait_until(partial(stands_still, batch), what="it says so")
    found[0].cancel()
    for bundle in bundles:
        pass_deadline(stack, bundle)

    unwanted, late = (batch.wait(timeout=180) for batch in found)

    assert unwanted.error is not None
    assert late.error is not None
    assert unwanted.error.reason == late.error.reason == "REQUESTS_LOST"
    assert (unwanted.state, unwanted.cancelled) == (BatchState.CANCELLED, COUNT)
    assert (late.state, late.failed) == (BatchState.FAILED, COUNT)
    for bundle in bundles:
        wait_until(partial(is_cancelled, stack, bundle), what="the bundle has ended")


def test_files_that_are_away_for_a_moment_cost_nothing(tmp_path: Path) -> None:
    with Stack(tmp_path, LOWTIDE_OUTPUT_GRACE_SECONDS="600") as stack:
        away = stack.directory / "away"
        batch = damaged(stack, lambda folder: folder.rename(away), "away for a moment")
        stack.worker("-P", "solo")
        wait_until(lambda: stack.redis.hget(f"lowtide:batch:{batch.id}", "damaged_since"), what="a worker has looked")
        away.rename(stack.directory / "spool" / "batches" / batch.id)

        assert batch.wait(timeout=180).succeeded == COUNT


def test_the_key_of_a_batch_that_is_being_deleted_goes_to_the_next(stack: Stack) -> None:
    queue, key = stack.queue(), "deleted, and submitted again"
    first = queue.submit(requests(key), model=MODEL, idempotency_key=key)
    first.wait(timeout=180)
    # So that it is `deleting` for as long as this test wants.
    stack.emulator.set_faults([{"on": "batches.delete", "kind": "status", "params": {"code": 503}}])
    try:
        first.delete()
        second = queue.submit(requests(key), model=MODEL, idempotency_key=key)
        assert first.status().state is BatchState.DELETING
        assert second.wait(timeout=180).succeeded == COUNT
    finally:
        stack.emulator.set_faults([])

    wait_until(lambda: is_gone(first), what="the first is deleted")
    assert second.id != first.id
    assert queue.submit(requests(key), model=MODEL, idempotency_key=key).id == second.id
    with pytest.raises(IdempotencyConflict, match=second.id):
        queue.submit(requests("other content"), model=MODEL, idempotency_key=key)


def test_a_key_that_points_at_no_batch_is_free(stack: Stack) -> None:
    stack.redis.set("lowtide:idempotency:left over", "b00000000000000000000 some-fingerprint")

    batch = stack.queue().submit(requests("left over"), model=MODEL, idempotency_key="left over")

    assert batch.wait(timeout=180).succeeded == COUNT
