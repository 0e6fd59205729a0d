"""A batch whose files are gone ends with an error; it can be cancelled and deleted, and submitted again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.producer.points import COUNT, MODEL, happens, requests
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch, BatchNotFound, BatchState, IdempotencyConflict


def _cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1])


SMALL: dict[str, Callable[[Path], object]] = {
    "all files are gone": shutil.rmtree,
    "the file is gone": lambda folder: (folder / "index.bin").unlink(),
    "the file is cut": _cut("index.bin"),
    "the file is another's": lambda folder: (folder / "index.bin").write_bytes(bytes(1000)),
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

    status = batch.wait(timeout=60)

    assert (status.state, status.failed, status.settled) == (BatchState.FAILED, COUNT, COUNT)
    assert status.error is not None
    assert status.error.reason == "REQUESTS_LOST"
    assert list(batch.results()) == []
    assert not [job for job in stack.emulator.jobs() if batch.id in job.display_name]


def test_a_batch_that_lost_its_files_is_submitted_again_under_its_key_and_deleted(stack: Stack) -> None:
    key = "lost, and submitted again"
    lost = damaged(stack, shutil.rmtree, key)
    lost.wait(timeout=60)

    again = stack.queue().submit(requests(key), model=MODEL, idempotency_key=key)
    lost.delete()

    wait_until(lambda: is_gone(lost), what="the batch is deleted")
    assert again.wait(timeout=60).succeeded == COUNT
    assert stack.queue().submit(requests(key), model=MODEL, idempotency_key=key).id == again.id


def test_a_batch_that_lost_its_files_can_be_cancelled(stack: Stack) -> None:
    lost = damaged(stack, shutil.rmtree, "lost, and cancelled")
    lost.cancel()

    status = lost.wait(timeout=60)

    assert (status.state, status.cancelled) == (BatchState.CANCELLED, COUNT)


def test_files_that_are_away_for_a_moment_cost_nothing(stack: Stack) -> None:
    away = stack.directory / "away"
    batch = damaged(stack, lambda folder: folder.rename(away), "away for a moment")
    wait_until(lambda: stack.redis.hget(f"lowtide:batch:{batch.id}", "damaged_since"), what="a worker has looked")
    away.rename(stack.directory / "spool" / "batches" / batch.id)

    assert batch.wait(timeout=60).succeeded == COUNT


def test_the_key_of_a_batch_that_is_being_deleted_goes_to_the_next(stack: Stack) -> None:
    queue, key = stack.queue(), "deleted, and submitted again"
    first = queue.submit(requests(key), model=MODEL, idempotency_key=key)
    first.wait(timeout=60)
    # So that it is `deleting` for as long as this test wants.
    stack.emulator.set_faults([{"on": "batches.delete", "kind": "status", "params": {"code": 503}}])
    try:
        first.delete()
        second = queue.submit(requests(key), model=MODEL, idempotency_key=key)
        assert first.status().state is BatchState.DELETING
        assert second.wait(timeout=60).succeeded == COUNT
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

    assert batch.wait(timeout=60).succeeded == COUNT
