"""Two workers at once, step by step: the interleavings that a kill hits only by luck."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from tests.chaos.world import Submitted, World
from tests.waiting import wait_until

from lowtide import BatchState
from lowtide.protocol import Member, Stage, job_id, keys
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
from lowtide_worker.state import Held, HeldJob, HeldSegment, Move, NotHeld, Superseded

STAGES = {
    Stage.SUBMIT: submit, Stage.CREATE: create, Stage.POLL: poll, Stage.COLLECT: collect, Stage.DELIVER: deliver,
    Stage.SETTLE: settle, Stage.CLEAN: clean, Stage.DELETE: delete,
}  # fmt: skip


class Hands:
    """A worker whose steps the test takes itself."""

    def __init__(self, world: World, one: Submitted) -> None:
        self._world = world
        self.runtime = Runtime(world.worker_settings())
        self.batch = keys.batch_member(one.id)
        self.job = keys.job_member(job_id(one.id, 1))

    def segment(self, number: int) -> Member:
        """The member of one of the job's segments."""
        return keys.segment_member(self.job.job, number)

    def begin(self, member: Member, stage: Stage) -> Held[Any]:
        """Takes a message for what is due next."""
        token = int(cast("bytes", self._world.redis.hget(keys.entity(member), "token")))
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
            lambda: not any(record.live for record in self._world.emulator.jobs()),
            timeout=10,
            what="the provider's job ends",
        )
        self.do(self.job, Stage.POLL)
        self.do(self.job, Stage.COLLECT)

    def due_in(self, member: str, stage: Stage) -> float:
        """Seconds until it is due."""
        seconds, microseconds = self._world.redis.time()
        score = cast("float", self._world.redis.zscore(keys.clock(stage.queue), member))
        return score - seconds - microseconds / 1e6


def test_a_job_that_is_looked_at_while_its_last_segment_comes_in_is_settled_at_once(world: World) -> None:
    one = world.submit(4, handled=False)
    hands = Hands(world, one)
    hands.until_segments()
    one.batch.cancel()  # makes the waiting job due

    early = hands.begin(hands.job, Stage.SETTLE)
    hands.do(hands.segment(0), Stage.DELIVER)
    with pytest.raises(Superseded):
        hands.finish(early)  # it saw a segment left and would sleep for ten minutes

    assert hands.due_in(hands.job, Stage.SETTLE) < 1
    hands.do(hands.job, Stage.SETTLE)
    assert one.batch.status().succeeded == 4


def test_a_batch_that_is_deleted_while_a_segment_is_handed_over_leaves_nothing(world: World) -> None:
    one = world.submit(4)
    hands = Hands(world, one)
    hands.until_segments()
    # The results are stored and counted, and the handler's broker is slow.
    segment = hands.begin(hands.segment(0), Stage.DELIVER)
    assert isinstance(segment, HeldSegment)
    hands.runtime.ledger.grant(segment, [])
    hands.runtime.ledger.record(segment, {"succeeded": 4}, handler_waits=True)
    world.redis.setrange(keys.settled(one.id), 0, b"\xf0")
    hands.do(hands.job, Stage.SETTLE)
    hands.do(hands.job, Stage.CLEAN)
    assert one.batch.status().state is BatchState.COMPLETED
    one.batch.delete()
    hands.do(hands.batch, Stage.DELETE)

    with pytest.raises(Superseded):
        hands.runtime.ledger.handed_over(segment)

    assert list(world.redis.scan_iter(f"*{one.id}*")) == []
    assert not any(one.id in str(member) for member in world.redis.zrange(keys.clock(Stage.DELIVER.queue), 0, -1))


def test_a_worker_that_lost_its_lease_changes_nothing_any_more(world: World) -> None:
    one = world.submit(4)
    hands = Hands(world, one)
    hands.until_segments()
    slow = hands.begin(hands.segment(0), Stage.DELIVER)
    assert isinstance(slow, HeldSegment)
    hands.do(hands.segment(0), Stage.DELIVER)
    wait_until(lambda: not one.batch.status().undelivered, timeout=10, what="the shop has taken it")
    status = one.batch.status()

    for attempt in (
        lambda: hands.runtime.ledger.grant(slow, [0]),
        lambda: hands.runtime.ledger.record(slow, {"succeeded": 4}, handler_waits=True),
        lambda: hands.runtime.ledger.handed_over(slow),
        lambda: hands.runtime.clock.keep(slow),
        lambda: hands.runtime.clock.advance(slow, Move(stage=Stage.DELIVER)),
        lambda: hands.finish(slow),
    ):
        with pytest.raises(Superseded):
            attempt()

    assert status.succeeded == 4
    assert one.batch.status() == status


def test_a_create_that_may_be_under_way_still_is_not_made_again(world: World) -> None:
    one = world.submit(4, handled=False)
    hands = Hands(world, one)
    hands.do(hands.batch, Stage.SUBMIT)
    first = hands.begin(hands.job, Stage.CREATE)
    # It is about to call, loses its lease, and calls all the same.
    hands.runtime.clock.keep_durably(first, {"intent": first.now()})

    hands.do(hands.job, Stage.CREATE)

    settings = hands.runtime.settings
    assert world.emulator.jobs() == []
    assert hands.due_in(hands.job, Stage.CREATE) > settings.provider_timeout_seconds
    assert world.emulator.stats().calls.get("batches.list", 0) == 0


def test_a_message_that_waited_longer_than_the_lease_is_still_good(world: World) -> None:
    one = world.submit(4, handled=False)
    hands = Hands(world, one)
    hands.do(hands.batch, Stage.SUBMIT)
    clock = hands.runtime.clock

    [first] = [dispatch for dispatch in clock.claim(Stage.CREATE.queue) if dispatch.member == hands.job]
    wait_until(lambda: hands.due_in(hands.job, Stage.CREATE) < 0, timeout=5, what="the lease lapses")
    [second] = [dispatch for dispatch in clock.claim(Stage.CREATE.queue) if dispatch.member == hands.job]

    held = clock.begin(Stage.CREATE, hands.job, first.token)
    assert isinstance(held, Held), "in a queue longer than the lease nothing would ever be done"
    assert clock.begin(Stage.CREATE, hands.job, second.token) is NotHeld.STALE
    wait_until(lambda: hands.due_in(hands.job, Stage.CREATE) < 0, timeout=5, what="the lease lapses")
    [third] = [dispatch for dispatch in clock.claim(Stage.CREATE.queue) if dispatch.member == hands.job]
    with pytest.raises(Superseded):
        clock.keep(held)
    assert isinstance(clock.begin(Stage.CREATE, hands.job, third.token), Held)


def test_an_intent_that_is_written_too_late_does_not_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one = world.submit(4, handled=False)
    hands = Hands(world, one)
    hands.do(hands.batch, Stage.SUBMIT)
    late = hands.begin(hands.job, Stage.CREATE)

    def write(runtime: Runtime, job: HeldJob, intent: Intent) -> None:
        world.redis.hincrby(keys.entity(hands.job), "token", 1)  # another worker has taken over meanwhile
        write_intent(runtime, job, intent)

    monkeypatch.setattr("lowtide_worker.stages.create.write_intent", write)
    with pytest.raises(Superseded):
        hands.finish(late)

    assert not list((world.directory / "spool" / "batches" / one.id).rglob("intent*"))
