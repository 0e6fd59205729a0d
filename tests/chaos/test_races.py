"""Two workers at once, step by step: the interleavings that a kill hits only by luck."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest
from tests.chaos.chaos_stack import ChaosStack, Submitted
from tests.waiting import wait_until

from lowtide import BatchState
from lowtide.protocol import Member, Stage, job_id, keys
from lowtide.store import redis_time
from lowtide_worker.intents import Intent, write_intent
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.clean import clean
from lowtide_worker.stages.collect import collect
from lowtide_worker.stages.create import create
from lowtide_worker.stages.delete import delete
from lowtide_worker.stages.deliver import deliver
from lowtide_worker.stages.poll import poll
from lowtide_worker.stages.settle import settle
from lowtide_worker.stages.submit import submit
from lowtide_worker.state import Held, HeldJob, HeldSegment, Move, NotHeld, SegmentRows, Superseded, Tally

STAGES = {
    Stage.SUBMIT: submit,
    Stage.CREATE: create,
    Stage.POLL: poll,
    Stage.COLLECT: collect,
    Stage.DELIVER: deliver,
    Stage.SETTLE: settle,
    Stage.CLEAN: clean,
    Stage.DELETE: delete,
}


class ManualWorker:
    """A worker whose steps the test takes itself."""

    def __init__(self, stack: ChaosStack, one: Submitted, **settings: float) -> None:
        self._stack = stack
        self.runtime = Runtime(stack.worker_settings(**settings))
        self.batch = keys.batch_member(one.id)
        self.job = keys.job_member(job_id(one.id, 1))

    def segment(self, number: int) -> Member:
        """The member of one of the job's segments."""
        return keys.segment_member(self.job.job, number)

    def begin(self, member: Member, stage: Stage) -> Held[Any]:
        """Takes a message for what is due next."""
        token = int(cast("bytes", self._stack.redis.hget(keys.entity(member), "token")))
        held = self.runtime.clock.begin(stage, member, token)
        assert isinstance(held, Held), held
        return held

    def finish(self, held: Held[Any]) -> None:
        """Runs the stage and moves on."""
        move = cast("Callable[[Runtime, Held[Any]], object]", STAGES[held.stage])(self.runtime, held)
        if isinstance(move, Move):
            self.runtime.clock.advance(held, move)

    def do(self, member: Member, stage: Stage) -> None:
        """Both."""
        self.finish(self.begin(member, stage))

    def until_segments(self) -> None:
        """Takes the batch's one job so far that its segments wait."""
        self.do(self.batch, Stage.SUBMIT)
        self.do(self.job, Stage.CREATE)
        wait_until(
            lambda: not any(record.live for record in self._stack.emulator.jobs()),
            what="the provider's job ends",
        )
        self.do(self.job, Stage.POLL)
        self.do(self.job, Stage.COLLECT)

    def due_at(self, member: str, stage: Stage) -> float:
        """When it is due, in Unix seconds."""
        return cast("float", self._stack.redis.zscore(keys.clock(stage.queue), member))

    def due_in(self, member: str, stage: Stage) -> float:
        """Seconds until it is due."""
        return self.due_at(member, stage) - redis_time(self._stack.redis)


def test_a_job_that_is_looked_at_while_its_last_segment_comes_in_is_settled_at_once(stack: ChaosStack) -> None:
    one = stack.submit(4, handled=False)
    worker = ManualWorker(stack, one)
    worker.until_segments()
    one.batch.cancel()  # makes the waiting job due

    early = worker.begin(worker.job, Stage.SETTLE)
    worker.do(worker.segment(0), Stage.DELIVER)
    with pytest.raises(Superseded):
        worker.finish(early)  # it saw a segment left and would sleep for ten minutes

    assert worker.due_in(worker.job, Stage.SETTLE) < 1
    worker.do(worker.job, Stage.SETTLE)
    assert one.batch.status().succeeded == 4


def test_a_batch_that_is_deleted_while_a_segment_is_handed_over_leaves_nothing(stack: ChaosStack) -> None:
    one = stack.submit(4)
    worker = ManualWorker(stack, one)
    worker.until_segments()
    # The results are stored and counted, and the handler's broker is slow.
    segment = worker.begin(worker.segment(0), Stage.DELIVER)
    assert isinstance(segment, HeldSegment)
    worker.runtime.ledger.grant(segment, SegmentRows([]))
    worker.runtime.ledger.record(segment, Tally(counts={"succeeded": 4}), handler_waits=True)
    stack.redis.setrange(keys.settled(one.id), 0, b"\xf0")
    worker.do(worker.job, Stage.SETTLE)
    worker.do(worker.job, Stage.CLEAN)
    assert one.batch.status().state is BatchState.COMPLETED
    one.batch.delete()
    worker.do(worker.batch, Stage.DELETE)

    with pytest.raises(Superseded):
        worker.runtime.deliveries.taken(segment)

    assert list(stack.redis.scan_iter(f"*{one.id}*")) == []
    assert not any(one.id in str(member) for member in stack.redis.zrange(keys.clock(Stage.DELIVER.queue), 0, -1))


def test_a_worker_that_lost_its_lease_changes_nothing_any_more(stack: ChaosStack) -> None:
    one = stack.submit(4)
    worker = ManualWorker(stack, one)
    worker.until_segments()
    slow = worker.begin(worker.segment(0), Stage.DELIVER)
    assert isinstance(slow, HeldSegment)
    with suppress(Superseded):  # by the handler app, where it takes the results before the worker is done
        worker.do(worker.segment(0), Stage.DELIVER)
    wait_until(lambda: not one.batch.status().undelivered, what="the handler app has taken it")
    status = one.batch.status()

    for attempt in (
        lambda: worker.runtime.ledger.grant(slow, SegmentRows([0])),
        lambda: worker.runtime.ledger.record(slow, Tally(counts={"succeeded": 4}), handler_waits=True),
        lambda: worker.runtime.deliveries.taken(slow),
        lambda: worker.runtime.clock.keep(slow),
        lambda: worker.runtime.clock.advance(slow, Move(stage=Stage.DELIVER)),
        lambda: worker.finish(slow),
    ):
        with pytest.raises(Superseded):
            attempt()

    assert status.succeeded == 4
    assert one.batch.status() == status


def test_a_create_that_may_be_under_way_still_is_not_made_again(stack: ChaosStack) -> None:
    one = stack.submit(4, handled=False)
    worker = ManualWorker(stack, one, provider_timeout_seconds=60)
    worker.do(worker.batch, Stage.SUBMIT)
    first = worker.begin(worker.job, Stage.CREATE)
    # It is about to call, loses its lease, and calls all the same.
    intended = first.now()
    worker.runtime.clock.keep_durably(first, {"intent": intended})

    worker.do(worker.job, Stage.CREATE)

    assert stack.emulator.jobs() == []
    assert worker.due_at(worker.job, Stage.CREATE) > intended + worker.runtime.settings.provider_timeout_seconds
    assert stack.emulator.stats().calls.get("batches.list", 0) == 0


def test_a_message_that_waited_longer_than_the_lease_is_still_good(stack: ChaosStack) -> None:
    one = stack.submit(4, handled=False)
    worker = ManualWorker(stack, one)
    worker.do(worker.batch, Stage.SUBMIT)
    clock = worker.runtime.clock

    [first] = [dispatch for dispatch in clock.claim(Stage.CREATE.queue) if dispatch.member == worker.job]
    wait_until(lambda: worker.due_in(worker.job, Stage.CREATE) < 0, what="the lease lapses")
    [second] = [dispatch for dispatch in clock.claim(Stage.CREATE.queue) if dispatch.member == worker.job]

    held = clock.begin(Stage.CREATE, worker.job, first.token)
    assert isinstance(held, Held), "in a queue longer than the lease nothing would ever be done"
    assert clock.begin(Stage.CREATE, worker.job, second.token) is NotHeld.STALE
    wait_until(lambda: worker.due_in(worker.job, Stage.CREATE) < 0, what="the lease lapses")
    [third] = [dispatch for dispatch in clock.claim(Stage.CREATE.queue) if dispatch.member == worker.job]
    with pytest.raises(Superseded):
        clock.keep(held)
    assert isinstance(clock.begin(Stage.CREATE, worker.job, third.token), Held)


def test_an_intent_that_is_written_too_late_does_not_stay(stack: ChaosStack, monkeypatch: pytest.MonkeyPatch) -> None:
    one = stack.submit(4, handled=False)
    worker = ManualWorker(stack, one)
    worker.do(worker.batch, Stage.SUBMIT)
    late = worker.begin(worker.job, Stage.CREATE)

    def write(runtime: Runtime, job: HeldJob, intent: Intent) -> Intent | None:
        stack.redis.hincrby(keys.entity(worker.job), "token", 1)  # another worker has taken over meanwhile
        return write_intent(runtime, job, intent)

    monkeypatch.setattr("lowtide_worker.stages.create.write_intent", write)
    with pytest.raises(Superseded):
        worker.finish(late)

    assert not list((stack.directory / "spool" / "batches" / one.id).rglob("intent*"))
