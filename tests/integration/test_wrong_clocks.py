"""A clock of Redis that is set back, or that is days ahead, costs a look and no result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import pytest
from tests.records import a_batch, a_job, hash_of
from tests.stack import Stack

from lowtide import BatchState
from lowtide.protocol import Queue, Stage, keys
from lowtide.protocol.changes import JobChange
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.delete import delete
from lowtide_worker.stages.reconcile import reconcile
from lowtide_worker.state import Done, HeldBatch, HeldJob, Move

DAY = 86_400.0
CLOCK = keys.clock(Queue.JOBS)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Without workers: the test claims what is due."""
    with Stack(tmp_path_factory.mktemp("clocks")) as stack:
        yield stack


@pytest.fixture
def runtime(stack: Stack) -> Runtime:
    stack.empty_redis()
    runtime = Runtime(stack.worker_settings())
    runtime.installation.check()
    return runtime


def due(runtime: Runtime, name: str, at: float) -> str:
    """Puts a new batch on the clock."""
    runtime.redis.hset(keys.batch(name), mapping=hash_of(a_batch(name, stage=Stage.SUBMIT)))
    runtime.redis.zadd(CLOCK, {keys.batch_member(name): at})
    return keys.batch_member(name)


@pytest.mark.parametrize("step", [30.0, 3 * 3600.0, 15 * DAY])
def test_after_a_step_back_what_is_due_later_is_due_sooner_by_as_much(runtime: Runtime, step: float) -> None:
    now = runtime.clock.now()
    runtime.redis.set(keys.ticked(Queue.JOBS), now + step)
    passed, soon = due(runtime, "b0passed", now + step - 10), due(runtime, "b0soon", now + step + 600)
    stopped = due(runtime, "b0stopped", now + keys.LOWER_TURN + 1)

    claimed = [one.member for one in runtime.clock.claim(Queue.JOBS, tick=True)]

    assert {passed, stopped} <= set(claimed)
    assert soon not in claimed
    assert float(cast("float", runtime.redis.zscore(CLOCK, soon))) == pytest.approx(now + 600, abs=30)
    assert float(cast("bytes", runtime.redis.get(keys.ticked(Queue.JOBS)))) < now + 30


def test_a_clock_that_goes_on_moves_nothing(runtime: Runtime) -> None:
    now = runtime.clock.now()
    runtime.redis.set(keys.ticked(Queue.JOBS), now - 3600)
    later = due(runtime, "b0later", now + 600)

    assert runtime.clock.claim(Queue.JOBS, tick=True) == []
    assert runtime.redis.zscore(CLOCK, later) == pytest.approx(now + 600, abs=1e-3)


def finished(runtime: Runtime, age: float) -> HeldBatch:
    """A batch that ended so long ago, and is due to be deleted."""
    now = runtime.clock.now()
    record = a_batch("b0done", stage=Stage.DELETE, state=BatchState.COMPLETED, finished=now - age)
    runtime.redis.hset(keys.batch("b0done"), mapping=hash_of(record))
    held = runtime.clock.begin(Stage.DELETE, keys.batch_member("b0done"), 0)
    assert isinstance(held, HeldBatch)
    return held


@pytest.mark.parametrize("ahead", [0.0, 15 * DAY])
def test_a_batch_is_kept_for_its_retention_however_far_ahead_the_clock_of_redis_is(
    runtime: Runtime, ahead: float
) -> None:
    held = finished(runtime, 3600)

    assert isinstance(delete(runtime, replace(held, begun=held.begun + ahead)), Move)
    assert runtime.redis.exists(keys.batch("b0done"))


def test_a_batch_goes_when_its_retention_is_over(runtime: Runtime) -> None:
    assert isinstance(delete(runtime, finished(runtime, 8 * DAY)), Done)
    assert not runtime.redis.exists(keys.batch("b0done"))


def test_an_age_is_by_redis_unless_it_is_days_ahead(runtime: Runtime) -> None:
    held = finished(runtime, 3600)
    for ahead, expected in ((-DAY, -DAY), (DAY, DAY), (3 * DAY, 0.0)):
        assert replace(held, begun=time.time() + ahead).age_of(time.time()) == pytest.approx(expected, abs=60)


def test_a_moment_that_is_still_to_come_is_now(runtime: Runtime) -> None:
    held = finished(runtime, 3600)
    for moment, expected in ((None, 0.0), (held.now() + DAY, 0.0), (held.now() - 60, -60.0)):
        assert held.noted(moment) - held.now() == pytest.approx(expected, abs=5)


def test_damage_that_was_noted_by_a_clock_ahead_begins_now(runtime: Runtime) -> None:
    finished(runtime, 3600)
    now = runtime.clock.now()
    runtime.redis.hset(keys.batch("b0done"), "damaged_since", now + DAY)

    assert runtime.bundles.damaged_since("b0done", now) == now
    assert runtime.bundles.damaged_since("b0done", now + 60) == now


def reconciled(runtime: Runtime, *, until: float, by_wall: float) -> tuple[Move[JobChange], float]:
    """The next move of a job whose create call was begun an hour ago by Redis's clock, and when it was asked for."""
    now = runtime.clock.now()
    runtime.redis.hset(keys.batch("b0calls"), mapping=hash_of(a_batch("b0calls")))
    job = a_job("b0calls-1", stage=Stage.CREATE, intent=now - 3600, intent_until=now + until, intent_by_wall=by_wall)
    runtime.redis.hset(keys.job(job.id), mapping=hash_of(job))
    held = runtime.clock.begin(Stage.CREATE, keys.job_member(job.id), 0)
    assert isinstance(held, HeldJob)
    move = reconcile(runtime, runtime.provider("gemini"), held)
    assert isinstance(move, Move)
    return move, now


def test_a_call_of_which_clocks_say_different_things_is_waited_for_as_long_as_any_call_takes(runtime: Runtime) -> None:
    for until, ago in ((15 * DAY, 3600), (-3540, 2)):  # the clock was set back, or went ahead, while the call was made
        move, now = reconciled(runtime, until=until, by_wall=time.time() - ago)

        answered = move.fields["answered"]
        assert answered is not None
        assert 0 <= answered - now - runtime.settings.provider_timeout_seconds < 60


def test_a_call_that_is_over_by_all_clocks_is_not_waited_for(runtime: Runtime) -> None:
    move, _ = reconciled(runtime, until=-3540, by_wall=time.time() - 3600)

    assert move.fields["doubtful_creates"] == 1
