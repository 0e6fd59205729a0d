"""The pause after a poll of a job with a webhook: long while events come, and as without a webhook in any doubt."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.records import a_batch, a_job, hash_of, held_job
from tests.stack import Stack

from lowtide.protocol import Queue, Stage, keys
from lowtide.states import ProviderName
from lowtide.store import Hints
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.poll import poll
from lowtide_worker.state import JobMove

BATCH = "b0rarely"
JOB, OTHER = f"{BATCH}-1", f"{BATCH}-2"
REQUESTS = [{"request": {"contents": [{"parts": [{"text": "hello"}]}]}, "metadata": {"key": "k"}}]
RARELY = 900.0
OFTEN = 60.0
"""More than any pause of a job without a webhook in these tests."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("polls")) as stack:
        yield stack


@pytest.fixture
def runtime(stack: Stack) -> Runtime:
    stack.empty_redis()
    stack.emulator.reset()
    return Runtime(stack.worker_settings(poll_with_webhook_seconds=RARELY, output_grace_seconds=0))


def after_poll(stack: Stack, runtime: Runtime, state: str, ago: float = 0.0, **fields: Any) -> JobMove:
    """The end of a poll of a job that is in this state at the provider."""
    times = {} if state == "RUNNING" else {"ended": -ago}
    seed = {"name": "batches/one", "model": "gemini-3.5-flash", "created": -5000, "state": state, **times}
    stack.emulator.seed_jobs([{**seed, "requests": REQUESTS}])
    given: dict[str, Any] = {"token": 1, "stage": Stage.POLL, "busy": True, "webhook": True, "name": "batches/one"}
    job = held_job(a_job(JOB, **given | {"created": time.time() - 5000} | fields), a_batch(BATCH), Stage.POLL)
    client, other = runtime.redis, a_job(OTHER, token=1, stage=Stage.POLL)
    client.hset(keys.batch(BATCH), mapping=hash_of(job.batch))
    client.zadd(keys.live(ProviderName.GEMINI), {JOB: 1, OTHER: 2})
    for record in (job.record, other):
        client.hset(keys.job(record.id), mapping=hash_of(record))
        client.zadd(keys.clock(Queue.JOBS), {keys.job_member(record.id): time.time() + RARELY})
    return poll(runtime, job)


def other_due_in(runtime: Runtime) -> float:
    return (runtime.redis.zscore(keys.clock(Queue.JOBS), keys.job_member(OTHER)) or 0) - time.time()


def events(runtime: Runtime, **times: float) -> None:
    """Events came, or were missed, so many seconds ago."""
    runtime.redis.zadd(keys.HOOKS, {name: time.time() - ago for name, ago in times.items()})


def test_a_job_waits_long_only_while_events_come_and_none_has_come_for_it(stack: Stack, runtime: Runtime) -> None:
    assert after_poll(stack, runtime, "RUNNING").after < OFTEN
    events(runtime, received=10)
    stack.emulator.reset()
    assert after_poll(stack, runtime, "RUNNING").after == RARELY
    stack.emulator.reset()
    assert after_poll(stack, runtime, "RUNNING", hinted=time.time()).after < OFTEN
    stack.emulator.reset()
    assert after_poll(stack, runtime, "RUNNING", webhook=None).after < OFTEN
    stack.emulator.reset()
    events(runtime, missed=5)
    silent = after_poll(stack, runtime, "RUNNING")
    assert silent.after < OFTEN
    assert "no events" in (silent.fields.get("problem") or "")


def test_a_missed_event_makes_the_polls_of_all_other_jobs_due(stack: Stack, runtime: Runtime) -> None:
    events(runtime, received=10)

    after_poll(stack, runtime, "SUCCEEDED", 100)

    assert other_due_in(runtime) < 1
    assert runtime.hooks.silent() is True


@pytest.mark.parametrize(
    ("state", "ago", "fields"),
    [
        pytest.param("SUCCEEDED", 5, {}, id="just-now"),
        pytest.param("SUCCEEDED", 100, {"hinted": 1.0}, id="with-its-event"),
        pytest.param("SUCCEEDED", 100, {"webhook": None}, id="without-a-webhook"),
        pytest.param("SUCCEEDED", 100, {"ended": 1.0}, id="seen-before"),
        pytest.param("CANCELLED", 100, {}, id="cancelled"),
    ],
)
def test_no_event_is_missed_of_a_job_that_needs_none(
    stack: Stack, runtime: Runtime, state: str, ago: float, fields: dict[str, Any]
) -> None:
    events(runtime, received=10)

    after_poll(stack, runtime, state, ago, **fields)

    assert runtime.hooks.silent() is False
    assert other_due_in(runtime) > OFTEN


def test_an_event_after_a_missed_one_makes_polls_rare_again(stack: Stack, runtime: Runtime) -> None:
    events(runtime, received=10)
    after_poll(stack, runtime, "SUCCEEDED", 100)

    Hints(stack.settings()).give(ProviderName.GEMINI, "evt-late", job=JOB, names=())

    assert runtime.hooks.silent() is False


def test_events_that_came_before_the_clock_was_set_back_hide_no_missed_one(stack: Stack, runtime: Runtime) -> None:
    events(runtime, received=-86_400)

    after_poll(stack, runtime, "SUCCEEDED", 100)

    assert runtime.hooks.silent() is True
    assert other_due_in(runtime) < 1
    Hints(stack.settings()).give(ProviderName.GEMINI, "evt-back", job=JOB, names=())
    assert runtime.hooks.silent() is False


def test_after_an_event_the_job_itself_is_fetched(stack: Stack, runtime: Runtime) -> None:
    """The list of jobs may be older than the event."""
    known: dict[str, Any] = {"polls": 1, "provider_state": "BATCH_STATE_RUNNING"}
    assert after_poll(stack, runtime, "RUNNING", **known).stage is Stage.POLL
    for _ in range(8):
        runtime.job_lookup(ProviderName.GEMINI).get("batches/one", "BATCH_STATE_RUNNING")
    stack.emulator.reset()

    assert after_poll(stack, runtime, "SUCCEEDED", hinted=time.time(), **known).stage is Stage.COLLECT
