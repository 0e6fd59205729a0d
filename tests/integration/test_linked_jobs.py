"""A link in the place of the folder in which a batch has the files of its jobs: it ends the batch, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.integration.deletion import is_gone
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch
from lowtide.protocol import BatchFiles


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("linked")) as stack:
        yield stack


def link(stack: Stack, batch: Batch, target: Path) -> None:
    jobs = stack.directory / "spool" / BatchFiles(batch.id).jobs
    if jobs.exists():
        jobs.rename(jobs.with_name("away"))
    jobs.symlink_to(target)


@pytest.mark.parametrize("cancelled", [False, True], ids=["wanted", "cancelled"])
def test_a_batch_with_a_link_in_the_place_of_its_jobs_ends_and_can_be_deleted(
    stack: Stack, tmp_path: Path, cancelled: bool
) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "file").write_text("not ours")
    worker = stack.worker("-P", "threads", "-c", "4", LOWTIDE_OUTPUT_GRACE_SECONDS="1")
    with stack.held_jobs():
        created = stack.queue().submit(blurbs(2), model=MODEL, share=False)
        wait_until(lambda: any(job.name for job in created.status().jobs), what="a job is created")
        link(stack, created, tmp_path / "others")
        worker.stop()
        fresh, other = (stack.queue().submit(blurbs(2), model=MODEL, share=False) for _ in range(2))
        link(stack, fresh, tmp_path / "others")
        if cancelled:
            fresh.cancel()
        worker = stack.worker("-P", "threads", "-c", "4", LOWTIDE_OUTPUT_GRACE_SECONDS="1")

        status = fresh.wait(timeout=180)

        assert (status.failed, status.cancelled) == ((0, 2) if cancelled else (2, 0))
        assert status.error
        assert status.error.reason == "REQUESTS_LOST"
    assert other.wait(timeout=180).succeeded == 2
    # What is paid is waited for.
    wait_until(lambda: "link" in str(created.status().problems), what="its problem is shown")
    created.cancel()
    assert created.wait(timeout=180).cancelled == 2
    for batch in (created, fresh):
        batch.delete()
        wait_until(partial(is_gone, batch), what="it is deleted")
    assert (tmp_path / "others" / "file").read_text() == "not ours"
    worker.kill()
