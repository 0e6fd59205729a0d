"""The problems of a batch are those that keep it, and not others, from its end."""

from __future__ import annotations

from typing import Any

import pytest

from lowtide import BatchState
from lowtide.protocol import BatchRecord, FailedDelivery
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


@pytest.mark.parametrize(
    ("attempt", "most", "says"),
    [
        (3, 8, "segment 0 of job 1: attempt 3 of 8 failed, the next at 00:00:40 UTC: ValueError: no column text"),
        (8, 8, "segment 0 of job 1: attempt 8 of 8 failed, the last one: the segment is parked at 00:00:40 UTC"),
        (3, 0, "segment 0 of job 1: attempt 3 failed, the next at 00:00:40 UTC: ValueError: no column text"),
    ],
    ids=["of many", "the last", "of an older worker"],
)
def test_a_handler_that_fails_is_shown_with_its_attempt_and_the_next_time(attempt: int, most: int, says: str) -> None:
    failed = FailedDelivery(segment="segment:b0failing-1:0", attempt=attempt, most=most, due=40.0)
    batch = BatchRecord(
        **RUNNING,
        state=BatchState.COMPLETED,
        finished=1.0,
        undelivered=1,
        delivery_problem="ValueError: no column text",
        delivery_failed=failed,
    )

    [problem] = problems(batch, [])

    assert problem.startswith(f"1 segment undelivered: {says}")
    assert problems(batch, [], silence="no worker listens") == ["1 segment undelivered: no worker listens"]


def test_a_damaged_note_of_an_attempt_does_not_hide_the_reason() -> None:
    failed = FailedDelivery(segment="x", attempt=1, due=1e300)
    batch = BatchRecord(
        **RUNNING, state=BatchState.RUNNING, undelivered=1, delivery_problem="too late", delivery_failed=failed
    )

    assert problems(batch, []) == ["1 segment undelivered: too late"]
