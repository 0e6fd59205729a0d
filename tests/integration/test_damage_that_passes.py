"""Files that cannot be read for a moment, twice, while a job waits for its slot: it ends only if they stay so."""

from __future__ import annotations

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack

from lowtide import SpoolError
from lowtide.protocol import BatchFiles, Member, Queue, Stage, keys
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.create import create
from lowtide_worker.stages.submit import submit
from lowtide_worker.state import HeldBatch, HeldJob


def begun(runtime: Runtime, member: Member) -> HeldJob | HeldBatch:
    """Takes what is due on the clock."""
    runtime.redis.zadd(keys.clock(Queue.JOBS), {member: 1}, xx=True)
    [due] = [one for one in runtime.clock.claim(Queue.JOBS) if one.member == member]
    held = runtime.clock.begin(due.stage, member, due.token)
    assert isinstance(held, (HeldJob, HeldBatch))
    return held


def run(runtime: Runtime, member: Member) -> Stage | None:
    """Runs a job's create; returns the stage that follows."""
    held = begun(runtime, member)
    assert isinstance(held, HeldJob)
    move = create(runtime, held)
    runtime.clock.advance(held, move)
    return move.stage


def test_two_moments_of_damage_are_not_one_that_stays(emptied: Stack) -> None:
    batch = emptied.queue().submit(blurbs(2), model=MODEL, share=False)
    runtime = Runtime(emptied.worker_settings(max_active_jobs=1, output_grace_seconds=900))
    held = begun(runtime, keys.batch_member(batch.id))
    assert isinstance(held, HeldBatch)
    submit(runtime, held)
    runtime.redis.zadd(keys.live("gemini"), {"b0lives-1": 1})
    job = f"{batch.id}-1"
    index = emptied.directory / "spool" / BatchFiles(batch.id).index
    away = index.with_name("away")

    index.rename(away)
    with pytest.raises(SpoolError, match="after 900 s of this"):
        run(runtime, keys.job_member(job))
    away.rename(index)
    # It was an hour ago that it could not be read.
    assert runtime.redis.hincrbyfloat(keys.job(job), "damaged_since", -3600) > 1e9
    assert run(runtime, keys.job_member(job)) is Stage.CREATE
    index.rename(away)

    # Its tokens are known, so that it is read when it has its slot.
    runtime.redis.zrem(keys.live("gemini"), "b0lives-1")
    with pytest.raises(SpoolError, match="after 900 s of this"):
        run(runtime, keys.job_member(job))
