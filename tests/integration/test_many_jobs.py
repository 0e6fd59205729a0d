"""The status of a batch with thousands of jobs is read by few commands, and still tells how they stand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.many_jobs import REQUESTS, add_jobs
from tests.stack import Stack

from lowtide import Batch, JobState
from lowtide.protocol import keys

STATES = {
    JobState.SUCCEEDED: 4000,
    JobState.FAILED: 60,
    JobState.RUNNING: 30,
    JobState.PLANNED: 119,
    JobState.CANCELLED: 1,
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Without a worker, which would continue with the jobs."""
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module")
def batch(stack: Stack) -> Batch:
    batch = stack.queue().submit(blurbs(1), model=MODEL, share=False)
    add_jobs(stack.redis, batch.id, STATES)
    return batch


def test_some_jobs_of_each_state_stand_for_thousands(stack: Stack, batch: Batch) -> None:
    with stack.redis.monitor() as monitor:
        status = batch.status(max_jobs=50)
        stack.redis.echo("over")
        said = list(takewhile(lambda one: not one["command"].startswith("ECHO"), monitor.listen()))

    assert len([one for one in said if one["client_type"] != "lua"]) < 150
    assert status.job_counts == STATES
    shown = [job.state for job in status.jobs]
    assert {state: shown.count(state) for state in STATES} == {
        JobState.SUCCEEDED: 5,
        JobState.FAILED: 9,
        JobState.RUNNING: 30,
        JobState.PLANNED: 5,
        JobState.CANCELLED: 1,
    }
    # Of the jobs that wait, those that are next; of the others, the newest.
    numbers = [int(job.id.rpartition("-")[2]) for job in status.jobs]
    assert numbers == sorted(numbers)
    assert {3996, 4000, 4060, 4090, 4091, 4095, 4210} <= set(numbers)


def test_a_limit_above_the_number_of_jobs_changes_nothing(batch: Batch) -> None:
    status = batch.status()

    assert len(status.jobs) == sum(STATES.values())
    assert status.job_counts == STATES
    assert batch.status(max_jobs=len(status.jobs)) == status
    some = batch.status(max_jobs=50)
    assert (some.answered, some.waiting) == (status.answered, status.waiting)
    assert some.answered == (4000 + 60 + 1) * REQUESTS + 30 * REQUESTS // 2
    assert some.waiting is not None
    assert some.waiting.requests == 119 * REQUESTS
    assert batch.summary().job_counts == {}


def test_jobs_that_are_damaged_or_missing_hide_no_other_job(stack: Stack) -> None:
    batch = stack.queue().submit(blurbs(1), model=MODEL, share=False)
    add_jobs(stack.redis, batch.id, {JobState.SUCCEEDED: 20})
    stack.redis.hset(keys.job(f"{batch.id}-2"), "state", b"\xff")
    stack.redis.delete(keys.job(f"{batch.id}-3"), keys.job(f"{batch.id}-4"))
    stack.redis.set(keys.job(f"{batch.id}-4"), "no hash")

    assert batch.status(max_jobs=10).job_counts == {JobState.UNKNOWN: 2, JobState.SUCCEEDED: 17}
    assert batch.status().job_counts == {JobState.UNKNOWN: 2, JobState.SUCCEEDED: 17}
