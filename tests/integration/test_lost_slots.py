"""Slots of jobs of which Redis has lost the record: the sweep frees them, once the provider does not run these jobs."""

from __future__ import annotations

import time
from typing import cast

from tests.integration.blurbs import MODEL
from tests.records import a_batch, a_job, hash_of, held_job
from tests.stack import Stack

from lowtide.protocol import Queue, Stage, keys
from lowtide_worker.deadlines import Deadline
from lowtide_worker.providers import NewJob
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.sweep import sweep
from lowtide_worker.state import HeldSweep, JobTokens

LIVE, TOKENS = keys.live("gemini"), keys.live_tokens("gemini", MODEL)
LINE = b'{"key": "r0.0", "request": {"contents": [{"parts": [{"text": "Hi"}]}]}}'


def swept(runtime: Runtime) -> None:
    runtime.clock.start_sweep()
    runtime.redis.zadd(keys.clock(Queue.JOBS), {keys.SWEEP_MEMBER: 1})
    [dispatch] = [one for one in runtime.clock.claim(Queue.JOBS) if one.stage is Stage.SWEEP]
    held = runtime.clock.begin(Stage.SWEEP, keys.SWEEP_MEMBER, dispatch.token)
    assert isinstance(held, HeldSweep)
    runtime.clock.advance(held, sweep(runtime, held))


def live(runtime: Runtime) -> set[str]:
    return {each.decode() for each in cast("list[bytes]", runtime.redis.zrange(LIVE, 0, -1))}


def test_a_slot_without_a_job_is_free_again_and_wakes_the_one_that_waits(still: Stack) -> None:
    still.empty_redis()
    runtime = Runtime(still.worker_settings(max_active_jobs=2))
    batch = a_batch("b0waits", state="running")
    runtime.redis.hset(keys.batch("b0waits"), mapping=hash_of(batch))
    for job in ("b0lives-1", "b0waits-1"):
        runtime.redis.hset(keys.job(job), mapping=hash_of(a_job(job, stage=Stage.CREATE, token=1)))
    runtime.redis.zadd(LIVE, {b"b0lives-1": 1, b"b0gone-1": 1, b"\xff": 1})
    runtime.redis.hset(TOKENS, mapping={"b0lives-1": 5, "b0gone-1": 5, "b0gone-2": 5})
    held = held_job(a_job("b0waits-1", stage=Stage.CREATE), batch, Stage.CREATE)
    assert not runtime.admission.admit(held, JobTokens(1, 1)).tokens
    runtime.redis.zadd(keys.clock(Queue.JOBS), {held.member: time.time() + 1800})

    swept(runtime)

    assert live(runtime) == {"b0lives-1"}
    assert runtime.redis.hkeys(TOKENS) == [b"b0lives-1"]
    due = runtime.redis.zscore(keys.clock(Queue.JOBS), held.member)
    assert isinstance(due, float)
    assert due <= time.time()
    assert runtime.admission.admit(held, JobTokens(1, 1)).tokens


def test_a_job_that_the_provider_runs_or_may_just_begin_to_run_keeps_its_slot(still: Stack) -> None:
    still.empty_redis()
    runtime = Runtime(still.worker_settings())
    runtime.installation.check()
    provider, job = runtime.provider("gemini"), "b0forgotten-1"
    name = runtime.display_name(a_job(job))
    with still.held_jobs():
        made = provider.create(NewJob(model=MODEL, display_name=name, lines=[LINE]), Deadline(30)).name
        runtime.redis.zadd(LIVE, {job: 1, "b0begins-1": time.time()})

        swept(runtime)

        assert live(runtime) == {job, "b0begins-1"}
        provider.cancel(made)
    swept(runtime)
    assert live(runtime) == {"b0begins-1"}
