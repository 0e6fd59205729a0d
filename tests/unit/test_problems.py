"""The problems of a batch are those that keep it, and not others, from its end."""

from __future__ import annotations

from typing import Any

import pytest

from lowtide import BatchState
from lowtide.protocol import BatchRecord
from lowtide.store.problems import problems

JOBS = [("b0-1", "RESOURCE_EXHAUSTED: quota is used up"), ("b0-2", None)]
RUNNING: dict[str, Any] = {"v": 3, "id": "b1", "created": 0.0, "model": "gemini-3.5-flash", "bundle": "b0"}


def test_a_running_batch_has_the_problems_of_its_jobs() -> None:
    batch = BatchRecord(**RUNNING, state=BatchState.RUNNING)

    assert problems(batch, JOBS) == ["job 1 will be retried: RESOURCE_EXHAUSTED: quota is used up"]


@pytest.mark.parametrize("state", [BatchState.CANCELLED, BatchState.COMPLETED, BatchState.FAILED, BatchState.DELETING])
def test_a_finished_batch_has_no_problem_of_a_job_that_others_still_need(state: BatchState) -> None:
    batch = BatchRecord(**RUNNING, state=state, finished=1.0)

    assert problems(batch, JOBS) == []


def test_a_finished_batch_keeps_the_problems_of_its_deletion_and_of_its_handler() -> None:
    batch = BatchRecord(
        **RUNNING, state=BatchState.CANCELLED, finished=1.0, problem="cannot be deleted: held", parked=1
    )

    assert problems(batch, JOBS) == [
        "cannot be deleted: held",
        "1 segment parked, because every attempt to deliver failed",
    ]
