"""Keys of Redis that all batches share, and of which another program has made something else."""

from __future__ import annotations

from typing import Any

import pytest
from tests.stack import Stack

from lowtide import Request
from lowtide.protocol import Queue, Stage, keys
from lowtide.states import JobState
from lowtide.store import REFUSED
from lowtide_worker.host import tasks, ticker
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.submit import submit as cut_batch
from lowtide_worker.state import HeldBatch, HeldJob

MODEL = "gemini-3.5-flash"


def test_a_key_of_another_type_is_the_problem_of_a_job_and_fails_it_never(
    still: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    still.empty_redis()
    runtime = Runtime(still.worker_settings(retry_first_seconds=60, retry_max_seconds=60))
    batch = still.queue().submit([Request(key="a", contents="x")], model=MODEL, share=False)
    cut = runtime.clock.begin(Stage.SUBMIT, keys.batch_member(batch.id), token_of(runtime, keys.batch(batch.id)))
    assert isinstance(cut, HeldBatch)
    cut_batch(runtime, cut)
    job = f"{batch.id}-1"
    runtime.redis.set(keys.live("gemini"), "a string")

    for _ in range(10):
        held = runtime.clock.begin(Stage.CREATE, keys.job_member(job), token_of(runtime, keys.job(job)))
        assert isinstance(held, HeldJob)
        tasks._work(runtime, Stage.CREATE, held)

    [seen] = batch.status().jobs
    assert f"{REFUSED}WRONGTYPE" in str(seen.problem)
    assert f"the key {keys.live('gemini')} of Redis is no sorted set any more" in str(seen.problem)
    assert seen.state is JobState.PLANNED
    assert "Redis does not answer" not in caplog.text


def test_a_shared_key_of_another_type_is_named_in_the_log_and_where_jobs_wait(
    still: Stack, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    still.empty_redis()
    runtime = Runtime(still.worker_settings())
    monkeypatch.setattr(ticker, "runtime", lambda: runtime)
    batch = still.queue().submit([Request(key="a", contents="x")], model=MODEL, share=False)
    cut = runtime.clock.begin(Stage.SUBMIT, keys.batch_member(batch.id), token_of(runtime, keys.batch(batch.id)))
    assert isinstance(cut, HeldBatch)
    cut_batch(runtime, cut)
    runtime.redis.hset(keys.job(f"{batch.id}-1"), "awaits", "slot")
    runtime.redis.zadd(keys.models("gemini"), {MODEL: 1.0})
    ticker.report_wrong_keys()
    assert not caplog.records
    runtime.redis.zadd(keys.strands("gemini", MODEL), {"0:": 1.0})
    wrong = {
        *(keys.live("gemini"), keys.waiting("gemini", MODEL), keys.limit("gemini"), keys.clock(Queue.JOBS)),
        *(keys.strand_of("gemini", MODEL), keys.share("gemini", MODEL), keys.served("gemini")),
        keys.strand("gemini", keys.strand_name(0, ""), MODEL),
    }
    for key in wrong:
        runtime.redis.delete(key)
        runtime.redis.sadd(key, "x")

    ticker.report_wrong_keys()

    assert {record.getMessage().split()[2] for record in caplog.records} == wrong
    assert {record.event for record in caplog.records} == {"key.wrong_type"}  # type: ignore[attr-defined]
    waiting = batch.status().waiting
    assert waiting is not None
    assert waiting.reason.endswith(f"{keys.waiting('gemini', MODEL)} and {keys.live('gemini')} in Redis")


@pytest.mark.parametrize("lost", [keys.clock(Queue.JOBS), keys.entity(keys.SWEEP_MEMBER)])
def test_a_key_of_the_sweep_may_be_deleted_while_workers_run(
    still: Stack, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    still.empty_redis()
    runtime = Runtime(still.worker_settings())
    monkeypatch.setattr(ticker, "runtime", lambda: runtime)
    batch = still.queue().submit([Request(key="a", contents="x")], model=MODEL, share=False)
    ticker.check_keys()
    runtime.redis.delete(lost)

    ticker.check_keys()
    runtime.oddities.put_back_on_clock(lambda: None)

    on_clock: Any = runtime.redis.zrange(keys.clock(Queue.JOBS), 0, -1)
    assert {one.decode() for one in on_clock} == {keys.batch_member(batch.id), keys.SWEEP_MEMBER}
    assert runtime.redis.hget(keys.entity(keys.SWEEP_MEMBER), "stage") == Stage.SWEEP.encode()


def token_of(runtime: Runtime, name: str) -> int:
    return int(runtime.redis.hget(name, "token") or 0)
