"""The state machine: everything that may happen, in every order that Hypothesis thinks of, step by step.

The run follows from its seed alone, schedule included. A failure is printed as the shortest list of steps that shows it,
with the seed of its round: MACHINE_SEED=<seed> MACHINE_STEPS=1 repeats it. MACHINE_STEPS says how many steps there are.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.chaos.machine_actors import Actor
from tests.chaos.machine_checks import Watch, check_rest, check_step
from tests.chaos.machine_provider import Fault, MachineJob, Row
from tests.chaos.machine_world import HOOK, STREAM, TASK, WORKERS, MachineWorld, Told

from lowtide import Batch
from lowtide.errors import BatchNotFinished
from lowtide.messages import Queue
from lowtide.states import JobState
from lowtide_cli.embedded import EmbeddedRedis

STEPS = int(os.environ.get("MACHINE_STEPS", "4000"))
SEED = os.environ.get("MACHINE_SEED")
_STEPS_A_RUN, _RUNS_A_ROUND = 120, 30

_which = st.integers(0, 30)
_worker = st.integers(0, WORKERS - 1)


class Machine(RuleBasedStateMachine):
    """Lowtide, its surroundings, and all that may happen to them."""

    world: MachineWorld
    steps = kills = late = 0

    def __init__(self) -> None:
        super().__init__()
        self.world.reset()
        self.watch = Watch(self.world)
        self.workers: list[Actor | None] = [None] * WORKERS
        self.dead: list[Actor] = []
        self.producers: list[Actor] = []
        self.copies: list[tuple[int, int]] = []

    # ---- producers

    @rule(
        requests=st.integers(1, 6), handler=st.sampled_from([None, TASK, STREAM, HOOK]),
        key=st.sampled_from([None, "one", "two"]), mode=st.sampled_from(["file", "inline"]),
        attempts=st.integers(1, 3), priority=st.integers(0, 1), dies_after=st.none() | st.integers(1, 12),
    )  # fmt: skip
    @precondition(lambda self: len(self.world.told) < 4)
    def submit(
        self, requests: int, handler: str | None, key: str | None, mode: str, attempts: int, priority: int,
        dies_after: int | None,
    ) -> None:  # fmt: skip
        world = self.world
        batch_id = f"b{world.submitted:04d}"
        prompts = {f"{key or batch_id}-{n}": f"say {key or batch_id}-{n}" for n in range(requests)}
        told = Told(batch_id, prompts, handler, key, world.time.time())
        world.told[batch_id] = told
        answer: list[Batch | None] = []
        options = {"mode": mode, "max_attempts": attempts, "priority": priority}
        actor = Actor(f"producer of {batch_id}", lambda: answer.append(world.submit(told, **options)))
        if dies_after is None:
            actor.finish()
            assert actor.error is None, f"{actor.name}: {actor.error!r}"
        else:
            actor.step(dies_after)
            self.dead.append(actor)
        told.recorded = bool(world.known(batch_id))
        batch = answer[0] if answer else None
        if answer and (batch is None or batch.id != batch_id):
            assert key is not None, f"{batch_id}: {batch}"
            assert any(one.key == key for one in world.told.values() if one is not told)
        elif answer:
            assert told.recorded

    @rule(which=_which)
    @precondition(lambda self: self.known())
    def cancel(self, which: int) -> None:
        self.batch(which).cancel()

    @rule(which=_which)
    @precondition(lambda self: self.known())
    def delete(self, which: int) -> None:
        told = self.known()[which % len(self.known())]
        try:
            self.world.queue.get(told.id).delete()
        except BatchNotFinished:
            return
        told.deleted = True

    # ---- the broker

    @rule()
    def tick(self) -> None:
        for queue in Queue:
            self.world.tick(queue)

    @rule(which=_which)
    @precondition(lambda self: self.world.bag)
    def lose_message(self, which: int) -> None:
        self.world.bag.pop(which % len(self.world.bag))

    @rule(which=_which, worker=_worker, points=st.integers(1, 25), again=st.booleans())
    @precondition(lambda self: self.world.bag and None in self.workers)
    def receive(self, which: int, worker: int, points: int, again: bool) -> None:  # noqa: FBT001
        """A worker gets a message and begins; the broker may give the same to another one later."""
        bag = self.world.bag
        stage, message = bag[which % len(bag)] if again else bag.pop(which % len(bag))
        free = [number for number, actor in enumerate(self.workers) if actor is None]
        number = free[worker % len(free)]
        self.workers[number] = self.world.actor(number, stage, message)
        self.go_on(number, points)

    @rule(messages=st.integers(1, 8))
    @precondition(lambda self: self.world.bag)
    def work(self, messages: int) -> None:
        """Another worker handles some messages, undisturbed."""
        for _ in range(messages):
            if self.world.bag:
                stage, message = self.world.bag.pop(0)
                self.ended(self.world.run(0, stage, message))

    # ---- workers

    @rule(worker=_worker, points=st.integers(1, 25))
    @precondition(lambda self: any(self.workers))
    def step(self, worker: int, points: int) -> None:
        self.go_on(self.busy(worker), points)

    @rule(worker=_worker)
    @precondition(lambda self: any(self.workers))
    def finish(self, worker: int) -> None:
        self.go_on(self.busy(worker), 1 << 30)

    @rule(worker=_worker)
    @precondition(lambda self: any(self.workers))
    def kill(self, worker: int) -> None:
        number = self.busy(worker)
        actor = self.workers[number]
        assert actor is not None
        self.dead.append(actor)
        self.workers[number] = None
        type(self).kills += 1

    @rule(worker=_worker, after=st.booleans(), points=st.integers(1, 25))
    @precondition(lambda self: any(self.workers))
    def cut(self, worker: int, after: bool, points: int) -> None:  # noqa: FBT001
        """The next command of a worker loses its connection, before or after it is done."""
        number = self.busy(worker)
        actor = self.workers[number]
        assert actor is not None
        actor.cut = "after" if after else "before"
        self.go_on(number, points)

    # ---- time

    @rule(seconds=st.sampled_from([1, 10, 45, 61, 130, 700, 4_000, 21_000]))
    def pass_time(self, seconds: int) -> None:
        self.world.pass_by(seconds)

    @rule()
    @precondition(lambda self: self.world.due())
    def wait(self) -> None:
        """Until the next thing is due; its message is sent."""
        world = self.world
        coming = [at for at in world.due().values() if at > world.time.time()]
        world.pass_by(max(0.0, min(coming, default=0.0) - world.time.time()) + 0.001)
        self.tick()

    # ---- the provider

    @rule(
        which=_which, rows=st.lists(st.sampled_from(Row), min_size=1, max_size=3), shuffle=st.integers(0, 9),
        end=st.sampled_from(
            [JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED, JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED]
        ),
        with_output=st.booleans(),
    )  # fmt: skip
    @precondition(lambda self: self.live())
    def end_job(self, which: int, rows: list[Row], shuffle: int, end: JobState, with_output: bool) -> None:  # noqa: FBT001
        self.world.provider.finish(self.a_job(which), end, rows, with_output=with_output, shuffle=shuffle)

    @rule()
    @precondition(lambda self: self.live())
    def answer_all(self) -> None:
        for job in self.live():
            self.world.provider.finish(job, JobState.SUCCEEDED, [Row.OK], with_output=True, shuffle=0)

    @rule(which=_which)
    @precondition(lambda self: self.live())
    def run_job(self, which: int) -> None:
        self.a_job(which).state = JobState.RUNNING

    @rule(which=_which, output_only=st.booleans())
    @precondition(lambda self: self.world.provider.by_name)
    def lose_job(self, which: int, output_only: bool) -> None:  # noqa: FBT001
        there = list(self.world.provider.by_name.values())
        job = there[which % len(there)]
        if not output_only or job.output is not None:
            self.world.provider.lose(job, output_only=output_only)

    @rule(which=_which, seconds=st.integers(1, 59))
    @precondition(lambda self: self.live())
    def hide_job(self, which: int, seconds: int) -> None:
        job = self.a_job(which)
        job.hidden_until = max(job.hidden_until, job.created + seconds)

    @rule(seconds=st.integers(0, 59), ranged=st.booleans(), slow=st.integers(0, 2))
    def provider_is(self, seconds: int, ranged: bool, slow: int) -> None:  # noqa: FBT001
        """Jobs made from now on: when they are listed, how their output is read, how soon uploads are ready."""
        provider = self.world.provider
        provider.lag, provider.ranged, provider.slow = float(seconds), ranged, slow

    @rule(fault=st.sampled_from([fault for fault in Fault if fault is not Fault.MISSING]))
    def fail_create(self, fault: Fault) -> None:
        self.world.provider.faults["create"] = fault

    @rule(
        method=st.sampled_from(
            ["upload", "ready", "get", "jobs", "inputs", "cancel", "delete", "delete_input", "parts", "read", "download"]
        ),
        fault=st.sampled_from([Fault.LOST_CALL, Fault.LOST_REPLY, Fault.THROTTLED, Fault.DENIED]),
    )
    def fail_call(self, method: str, fault: Fault) -> None:
        self.world.provider.faults[method] = fault

    @rule(which=_which)
    @precondition(lambda self: self.world.provider.uploads)
    def lose_upload(self, which: int) -> None:
        uploads = self.world.provider.uploads
        del uploads[list(uploads)[which % len(uploads)]]

    # ---- handlers

    @rule(which=_which, failed=st.none() | st.just([]) | st.just([0]), again=st.booleans())
    @precondition(lambda self: self.world.in_hand)
    def answer(self, which: int, failed: list[int] | None, again: bool) -> None:  # noqa: FBT001
        """The handler takes or gives back what it has; its broker may give it the same again."""
        in_hand = self.world.in_hand
        segment = in_hand[which % len(in_hand)] if again else in_hand.pop(which % len(in_hand))
        if failed and segment.only is not None:
            failed = segment.only[:1]
        self.world.answer(segment, failed=failed)

    @rule(which=_which)
    @precondition(lambda self: self.world.in_hand)
    def lose_delivery(self, which: int) -> None:
        self.world.in_hand.pop(which % len(self.world.in_hand))

    @rule(times=st.integers(1, 4))
    def fail_handler(self, times: int) -> None:
        self.world.handler_fails = times

    @rule(which=_which, again=st.booleans())
    @precondition(lambda self: self.parked())
    def end_letter(self, which: int, again: bool) -> None:  # noqa: FBT001
        letter = self.parked()[which % len(self.parked())]
        if again:
            self.world.letters.redeliver(letter)
        else:
            self.world.told[letter.rpartition("-")[0]].dropped = True
            self.world.letters.drop(letter)

    # ---- what must be true

    @invariant()
    def holds(self) -> None:
        type(self).steps += 1
        self.world.time.pass_by(0.001)
        check_step(self.world)

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.end()
        finally:
            for actor in [*self.dead, *filter(None, self.workers)]:
                actor.abandon()

    def end(self) -> None:
        """All come to rest without the frozen workers; then these wake up, late; then all batches are deleted."""
        world = self.world
        world.rest()
        for number, actor in enumerate(self.workers):
            if actor is not None:
                type(self).late += 1
                self.go_on(number, 1 << 30)
        world.rest()
        world.sweep()
        check_rest(world)
        for told in self.known():
            world.queue.get(told.id).delete()
            told.deleted = True
        world.rest()
        world.sweep()
        check_rest(world)

    # ---- how

    def go_on(self, number: int, points: int) -> None:
        actor = self.workers[number]
        assert actor is not None
        if points > 1000:
            # Point by point, for it may be superseded on the way.
            before = self.watch.before(actor)
            actor.step(points)
            self.watch.after(actor, before)
        else:
            before = self.watch.before(actor)
            actor.step(points)
            self.watch.after(actor, before)
        if actor.done:
            self.ended(actor)
            self.workers[number] = None

    def ended(self, actor: Actor) -> None:
        if actor.error is not None:
            raise AssertionError(f"{actor.name} raised {actor.error!r}") from actor.error

    def busy(self, worker: int) -> int:
        numbers = [number for number, actor in enumerate(self.workers) if actor is not None]
        return numbers[worker % len(numbers)]

    def known(self) -> list[Told]:
        return [told for told in self.world.told.values() if self.world.known(told.id)]

    def batch(self, which: int) -> Batch:
        return self.world.queue.get(self.known()[which % len(self.known())].id)

    def live(self) -> list[MachineJob]:
        return [job for job in self.world.provider.all if job.live]

    def a_job(self, which: int) -> MachineJob:
        return self.live()[which % len(self.live())]

    def parked(self) -> list[str]:
        return [letter.id for letter in self.world.letters.list() if letter.kind == "segment"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineWorld]:
    folder = tmp_path_factory.mktemp("machine")
    with EmbeddedRedis(folder / "redis") as server, pytest.MonkeyPatch.context() as patch:
        yield MachineWorld(server.url, folder / "spool", patch)


@pytest.mark.timeout(STEPS // 20 + 600)
def test_nothing_is_lost_or_paid_twice_whatever_happens_in_whatever_order(world: MachineWorld) -> None:
    first = int(SEED) if SEED else random.SystemRandom().randrange(1 << 32)
    Machine.world = world
    for number in count(first):
        print(f"MACHINE_SEED={number}: {Machine.steps} steps so far", flush=True)
        run_state_machine_as_test(
            seed(number)(Machine),
            settings=settings(
                stateful_step_count=_STEPS_A_RUN, max_examples=_RUNS_A_ROUND, deadline=None, database=None,
                print_blob=False, suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
            ),
        )  # fmt: skip
        if Machine.steps >= STEPS:
            break
    print(f"{Machine.steps} steps, {Machine.kills} workers killed, {Machine.late} woken late")
