"""A batch's deadline holds while its job waits: for a quota, or for a slot at the provider."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Awaited, BatchState, ResultStatus
from lowtide_emulator import Settings as EmulatorSettings

SECONDS = 8.0
"""Until the deadline. On a busy machine, a job may need most of it to begin to wait."""


def test_a_batch_that_the_quota_never_lets_in_expires_with_the_reason(bare_stack: Stack) -> None:
    bare_stack.worker("-P", "threads", "-c", "2", LOWTIDE_BATCH_DEADLINE_SECONDS=f"{SECONDS}")
    bare_stack.emulator.set_faults(
        [{"on": "batches.create", "kind": "status", "params": {"code": 429, "message": "enqueued tokens"}}]
    )
    batch = bare_stack.queue().submit(blurbs(3), model=MODEL)

    status = batch.wait(timeout=180)

    assert (status.state, status.expired) == (BatchState.EXPIRED, 3)
    assert status.reasons == {"RESOURCE_EXHAUSTED": 3}
    assert {result.status for result in batch.results()} == {ResultStatus.EXPIRED}


@pytest.mark.parametrize("call", ["files.upload.start", "batches.create"])
def test_a_deadline_does_not_wait_for_the_next_try_after_a_refusal(bare_stack: Stack, call: str) -> None:
    pauses = dict.fromkeys(("RETRY_FIRST", "RETRY_MAX", "QUOTA_FIRST", "QUOTA_MAX"), "600")
    env = {f"LOWTIDE_{name}_SECONDS": seconds for name, seconds in pauses.items()}
    bare_stack.worker("-P", "threads", "-c", "2", **env)
    bare_stack.emulator.set_faults([{"on": call, "kind": "status", "params": {"code": 401, "message": "no entry"}}])
    expires, stops = (bare_stack.queue().submit(blurbs(2), model=MODEL, deadline=SECONDS) for _ in range(2))
    wait_until(lambda: any(job.problem for job in stops.status().jobs), timeout=180, what="a job is refused")
    stops.cancel()

    status = expires.wait(timeout=180)

    assert status.reasons == {"UNAUTHENTICATED": 2}
    assert {"no entry" in str(result.error) for result in expires.results()} == {True}
    assert (stops.wait(timeout=180).cancelled, stops.status().error) == (2, None)


def test_a_batch_that_never_gets_a_slot_expires(tmp_path: Path) -> None:
    with Stack(tmp_path, EmulatorSettings(running_seconds=600)) as stack:
        stack.worker("-P", "threads", "-c", "2", LOWTIDE_MAX_ACTIVE_JOBS="1")
        has_it = stack.queue().submit(blurbs(2), model=MODEL)
        wait_until(lambda: has_it.status().jobs and has_it.status().jobs[0].name)
        waits = stack.queue().submit(blurbs(2), model=MODEL, deadline=SECONDS)

        waiting = wait_until(lambda: waits.status().waiting)
        [listed] = [one for one in stack.queue().list().batches if one.id == waits.id]
        assert (waiting.why, waiting.requests, waiting.position) == (Awaited.SLOT, 2, 1)
        assert listed.waiting is not None
        assert listed.waiting.requests == 2
        assert has_it.status().waiting is None
        status = waits.wait(timeout=180)

        assert (status.state, status.expired) == (BatchState.EXPIRED, 2)
        assert status.waiting is None
        assert status.reasons == {"EXPIRED": 2}
        assert status.deadline_at == pytest.approx(status.created_at + SECONDS)
        assert len(list(waits.results())) == 2
        assert not has_it.status().finished
