"""Output that was paid for is thrown away only where it is sure to be worthless."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch, BatchNotFound
from lowtide.protocol import BatchFiles, job_id, keys

ERROR = {"error": {"code": 500, "message": "Internal error", "status": "INTERNAL", "details": [{"x": 1}]}}
INSTEAD = {
    "a page of HTML": "<!doctype html>\n<html><body>{please} {wait}</body></html>",
    "an empty body": "",
    "an error as JSON": json.dumps(ERROR, indent=2),
    "an error on one line": json.dumps(ERROR),
    "too few rows": '{"key":"r0.0","response":{"candidates":[]}}\n',
}
HOUR = 3600
PAGE = INSTEAD["a page of HTML"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("evidence")) as stack:
        stack.worker("-P", "threads", "-c", "4", LOWTIDE_MISSING_JOB_SECONDS="600", LOWTIDE_OUTPUT_GRACE_SECONDS="60")
        yield stack


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Here output that cannot be had is soon given up."""
    with Stack(tmp_path_factory.mktemp("impatient")) as stack:
        stack.worker("-P", "solo", LOWTIDE_OUTPUT_GRACE_SECONDS="0.5")
        yield stack


@pytest.fixture(autouse=True)
def no_faults(stack: Stack) -> Iterator[None]:
    yield
    stack.emulator.set_faults([])


def created(stack: Stack, batch: Batch) -> int:
    """How many provider jobs were made for a batch."""
    return sum(f"-{batch.id}-" in job.display_name for job in stack.emulator.jobs())


def rule(on: str, kind: str, times: int | None = 1, **params: object) -> dict[str, object]:
    return {"on": on, "kind": kind, "times": times, "params": params}


@pytest.mark.parametrize(("what", "requests"), [*((what, 3) for what in INSTEAD), ("an error on one line", 1)])
def test_something_else_in_the_place_of_output_is_asked_for_again(stack: Stack, what: str, requests: int) -> None:
    stack.emulator.set_faults([rule("files.download", "body", times=2, text=INSTEAD[what])])

    batch = stack.queue().submit(blurbs(requests), model=MODEL)

    assert batch.wait(timeout=180).succeeded == requests
    assert created(stack, batch) == 1
    assert batch.status().quarantined == 0
    assert [job.problem for job in batch.status().jobs] == [None]


def test_output_that_stays_odd_is_taken_as_it_is_after_a_while(impatient: Stack) -> None:
    impatient.emulator.set_faults([rule("files.download", "body", times=None, text=PAGE)])

    status = impatient.queue().submit(blurbs(2), model=MODEL, max_attempts=1).wait(timeout=180)

    assert (status.state, status.failed) == ("failed", 2)


def test_a_cancel_ends_a_batch_whose_output_cannot_be_had(impatient: Stack) -> None:
    impatient.emulator.set_faults([rule("files.download", "status", times=None, code=503)])
    batch = impatient.queue().submit(blurbs(2), model=MODEL)
    wait_until(lambda: batch.status().jobs and batch.status().jobs[0].problem, what="the output cannot be had")

    batch.cancel()

    assert batch.wait(timeout=180).state == "cancelled"


def test_an_error_of_a_whole_job_is_cut_short_before_it_is_written_for_each_request(stack: Stack) -> None:
    stack.emulator.set_faults([rule("job", "fail", code=3, message="x" * 50_000)])
    batch = stack.queue().submit(blurbs(40), model=MODEL)

    assert batch.wait(timeout=180).failed == 40

    texts = {result.error.message for result in batch.results() if result.error}
    assert texts == {"x" * 500}
    files = BatchFiles(batch.id)
    stored = stack.directory / "spool" / files.folder
    assert sum(path.stat().st_size for path in stored.rglob("*.jsonl")) < 200_000
    assert len(stack.redis.hget(keys.job(job_id(batch.id, 1)), "error") or b"") < 1000


def test_jobs_that_a_wrong_key_cannot_see_are_waited_for_not_lost(stack: Stack) -> None:

    def told() -> bool:
        return "is it the right key" in (batch.status().jobs[0].problem or "")

    with stack.held_jobs():
        batch = stack.queue().submit(blurbs(2), model=MODEL)
        wait_until(lambda: batch.status().jobs and batch.status().jobs[0].polls > 0, what="the job is seen")
        stack.emulator.set_faults([rule("batches.get", "status", times=None, code=404, message="not found")])
        wait_until(told, what="the alarm")
    assert "is it the right key" in stack.logs()
    stack.emulator.set_faults([])

    assert batch.wait(timeout=180).succeeded == 2
    assert created(stack, batch) == 1


def test_a_batch_whose_jobs_cannot_be_seen_can_be_cancelled(stack: Stack) -> None:
    stack.emulator.set_faults([rule("batches.get", "status", times=None, code=404, message="not found")])
    batch = stack.queue().submit(blurbs(2), model=MODEL)
    wait_until(lambda: batch.status().jobs and batch.status().jobs[0].problem, what="the alarm")

    batch.cancel()

    assert batch.wait(timeout=180).cancelled == 2


def test_a_new_job_that_a_wrong_key_can_see_is_no_evidence_against_the_old_ones(stack: Stack) -> None:
    """The wrong project takes new jobs, and shows them."""
    stack.emulator.set_faults([rule("job", "state", state="BATCH_STATE_RUNNING", seconds=HOUR)])
    batch = stack.queue().submit(blurbs(2), model=MODEL)
    name = wait_until(lambda: batch.status().jobs and batch.status().jobs[0].polls > 0 and batch.status().jobs[0].name)
    gone = rule("batches.get", "status", times=None, code=404, message="not found") | {"match": name}
    stack.emulator.set_faults([gone])
    others = [stack.queue().submit(blurbs(1), model=MODEL) for _ in range(2)]

    wait_until(lambda: batch.status().jobs[0].problem, what="the alarm")
    for other in others:
        assert other.wait(timeout=180).succeeded == 1
    assert not batch.status().finished
    stack.emulator.set_faults([])
    stack.emulator.advance(HOUR)

    assert batch.wait(timeout=180).succeeded == 2
    assert created(stack, batch) == 1


def test_a_job_that_is_gone_while_others_are_seen_is_lost_soon_and_runs_again(stack: Stack) -> None:
    vanished = rule("batches.get", "status", times=None, code=404, message="not found")
    with stack.held_jobs():
        witness, batch = (stack.queue().submit(blurbs(2), model=MODEL) for _ in range(2))
        for one in (witness, batch):
            wait_until(lambda one=one: one.status().jobs and one.status().jobs[0].polls > 0)  # type: ignore[misc]
        stack.emulator.set_faults([vanished | {"match": batch.status().jobs[0].name}])
        wait_until(lambda: created(stack, batch) == 2, what="it runs again")

    assert batch.wait(timeout=180).succeeded == 2
    assert created(stack, batch) == 2


def gone(batch: Batch) -> bool:
    try:
        batch.status()
    except BatchNotFound:
        return True
    return False


@pytest.fixture
def forgetful(bare_stack: Stack) -> Stack:
    """Nobody takes results here, and the retention is short."""
    bare_stack.worker("-P", "solo", LOWTIDE_RETENTION_SECONDS="0.5", LOWTIDE_UNDELIVERED_RETENTION_SECONDS=str(HOUR))
    return bare_stack


def test_results_that_no_handler_took_hold_the_retention_off(forgetful: Stack) -> None:
    queue = forgetful.queue()
    taken = queue.submit(blurbs(1), model=MODEL)
    kept, deleted = (queue.submit(blurbs(1), model=MODEL, on_result="nobody.handles") for _ in range(2))

    def problem(batch: Batch) -> Any:
        return forgetful.redis.hget(keys.batch(batch.id), "problem")

    wait_until(lambda: problem(kept) and problem(deleted), what="they say why they are kept")
    assert b"not delivered" in problem(kept)
    wait_until(lambda: gone(taken), what="what nobody waits for goes")
    assert [result.key for result in kept.results()] == ["sku-0"]
    deleted.delete()
    wait_until(lambda: gone(deleted), what="an explicit delete goes through")
    assert not gone(kept)
    forgetful.redis.hincrbyfloat(keys.batch(kept.id), "finished", -HOUR)
    wait_until(lambda: gone(kept), what="the longer limit passes")
