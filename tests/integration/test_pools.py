"""Requests of many jobs that run again share jobs, and none waits for requests that cannot come."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from tests.integration.blurbs import MODEL
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch, Request
from lowtide.states import BatchState

JOBS = 6
ONCE = "[[error:8:1]] "
_EDITIONS = itertools.count()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """With a worker that waits ten minutes for one request of each job, so that only the numbers decide."""
    limits = {
        "LOWTIDE_MAX_REQUESTS_PER_JOB": str(JOBS),
        "LOWTIDE_LINGER_REQUESTS": str(JOBS),
        "LOWTIDE_LINGER_SECONDS": "600",
    }
    with Stack(tmp_path_factory.mktemp("pools"), None, cloud=None, **limits) as stack:
        stack.worker()
        yield stack


def article(number: int, *, mark: str = "") -> Request:
    """A request; with a mark, the emulator answers an error. It knows requests by their content."""
    return Request(key=f"k{number}", contents=f"{mark}Describe article {number} of {next(_EDITIONS)}.")


def provider_jobs(*batches: Batch) -> list[tuple[int, int]]:
    """The attempt and the number of requests of each job that the provider has had of batches, or of their bundle."""
    jobs = {job.id: job for batch in batches for job in batch.status().jobs if job.name}
    return sorted((job.attempt, job.requests + job.others) for job in jobs.values())


def test_one_job_asks_again_for_the_stragglers_of_all_jobs(stack: Stack) -> None:
    requests = [article(n, mark=ONCE * (n % JOBS == 0)) for n in range(JOBS * JOBS)]

    batch = stack.queue().submit(requests, model=MODEL)

    assert batch.wait(timeout=180).succeeded == len(requests)
    assert provider_jobs(batch) == [(1, JOBS)] * JOBS + [(2, JOBS)]
    results = list(batch.results())
    assert sorted(result.key for result in results) == sorted(str(request.key) for request in requests)
    assert {result.key for result in results if result.attempts == 2} == {f"k{n}" for n in range(0, JOBS * JOBS, JOBS)}


def test_one_job_goes_on_with_the_answers_of_all_jobs(stack: Stack) -> None:
    parts = {n: 2 + n % 2 for n in range(0, JOBS * JOBS, JOBS + 1)}
    requests = [article(n, mark=f"[[continuation:{parts[n]}]] " if n in parts else "") for n in range(JOBS * JOBS)]

    batch = stack.queue().submit(requests, model=MODEL)

    assert batch.wait(timeout=180).succeeded == len(requests)
    assert provider_jobs(batch) == [(1, JOBS // 2)] + [(1, JOBS)] * (JOBS + 1)
    prompts = {request.key: request.contents for request in requests}
    results = {result.key: result for result in batch.results()}
    assert {key: result.attempts for key, result in results.items()} == {
        f"k{n}": parts.get(n, 1) for n in range(JOBS**2)
    }
    assert all(results[f"k{n}"].text == prompts[f"k{n}"] for n in parts)


def test_one_job_asks_again_for_the_stragglers_of_many_batches(stack: Stack) -> None:
    size = JOBS * JOBS
    queue = stack.queue(share_jobs=True, linger_seconds=600, linger_requests=size, max_attempts=2)
    marks = [ONCE] * (JOBS - 1) + ["[[error:8]] "]

    batches = [queue.submit([article(n, mark=mark * (n == 0)) for n in range(JOBS)], model=MODEL) for mark in marks]

    for batch in batches[:-1]:
        assert batch.wait(timeout=180).succeeded == JOBS
        assert {result.key: result.attempts for result in batch.results()} == {
            f"k{n}": 1 + (n == 0) for n in range(JOBS)
        }
    lost = batches[-1].wait(timeout=180)
    assert (lost.state, lost.succeeded, lost.reasons) == (BatchState.COMPLETED, JOBS - 1, {"RESOURCE_EXHAUSTED": 1})
    assert provider_jobs(*batches) == [(1, JOBS)] * JOBS + [(2, JOBS)]
    assert provider_jobs(batches[0]) == [(1, JOBS), (2, JOBS)]


def test_requests_whose_inline_rows_have_no_key_run_again_by_file(stack: Stack) -> None:
    lost = {"on": "job", "kind": "missing_metadata", "times": 2, "params": {"count": 1}}
    stack.emulator.set_faults([lost])

    batch = stack.queue().submit([article(n) for n in range(3 * JOBS)], model=MODEL, mode="inline", max_attempts=2)

    assert batch.wait(timeout=180).succeeded == 3 * JOBS
    jobs = [job for job in stack.emulator.jobs() if batch.id in job.display_name]
    assert [job.source is None for job in sorted(jobs, key=lambda job: job.created)] == [True] * 3 + [False]
    assert provider_jobs(batch) == [(1, JOBS)] * 3 + [(2, 2)]


def test_requests_wait_for_no_others_when_all_jobs_are_closed(stack: Stack) -> None:
    requests = [article(n, mark=ONCE * (n < 2)) for n in range(2 * JOBS)]

    batch = stack.queue().submit(requests, model=MODEL)

    assert batch.wait(timeout=180).succeeded == len(requests)
    assert provider_jobs(batch) == [(1, JOBS), (1, JOBS), (2, 2)]


def test_a_cancel_ends_requests_that_wait_for_others(stack: Stack) -> None:
    requests = [article(n, mark=ONCE * (n % JOBS == 0)) for n in range(2 * JOBS)]
    stack.emulator.set_faults([{"on": "job", "kind": "stuck_running", "times": 1}])
    batch = stack.queue().submit(requests, model=MODEL)
    wait_until(lambda: len(batch.status().jobs) == 3, what="a request waits to run again")

    batch.cancel()

    status = batch.wait(timeout=180)
    assert (status.state, status.succeeded, status.cancelled) == (BatchState.CANCELLED, JOBS - 1, JOBS + 1)
    assert len(provider_jobs(batch)) == 2
