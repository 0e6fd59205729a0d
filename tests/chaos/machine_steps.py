"""The steps that may happen to the simulation, each with what it needs, how often it comes, and its choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import strategies as st
from tests.chaos.machine_actors import Actor
from tests.chaos.machine_checks import Watch, check_rest, check_step
from tests.chaos.machine_output import Row
from tests.chaos.machine_provider import Fault, MachineJob
from tests.chaos.machine_simulation import HOOK, STREAM, TASK, WORKERS, Simulation
from tests.chaos.machine_state import Expected

from lowtide import Batch
from lowtide.errors import BatchNotFinished
from lowtide.protocol import Queue
from lowtide.states import JobState

_TO_THE_END = 1 << 30
_MOST_BATCHES = 4
_which = st.integers(0, 30)
_few, _points = st.integers(1, 8), st.integers(1, 16)
_cut, _failed = st.sampled_from(["before", "after"]), st.sampled_from([None, None, [], [0]])
_ENDS = [JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED, JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED]
_METHODS = [
    "upload",
    "ready",
    "get",
    "jobs",
    "inputs",
    "cancel",
    "delete",
    "delete_input",
    "parts",
    "read",
    "download",
]


@dataclass(frozen=True)
class Step:
    """One kind of step."""

    name: str
    do: Callable[..., None]
    when: Callable[[Machine], object]
    weight: int
    trouble: bool
    """Some runs are without it."""
    restores: bool
    """It is for runs in which the store is put back to an earlier time."""
    choices: Mapping[str, st.SearchStrategy[Any]]


T = TypeVar("T")
STEPS: dict[str, Step] = {}
Method = Callable[..., None]


def step(
    weight: int,
    when: Callable[[Machine], object] = lambda _: True,
    *,
    trouble: bool = False,
    restores: bool = False,
    **choices: Any,
) -> Callable[[Method], Method]:
    """Declares a method of the machine as a step that may happen while `when` is true."""

    def declare(do: Method) -> Method:
        STEPS[do.__name__] = Step(do.__name__, do, when, weight, trouble, restores, choices)
        return do

    return declare


@dataclass
class Figures:
    """The figures of all runs together."""

    runs: int = 0
    steps: int = 0
    killed: int = 0
    superseded: int = 0
    """Workers that went on although another one had taken over."""
    twins: int = 0
    """Jobs made twice where no client could have prevented it."""


class Machine:
    """Lowtide, its surroundings, and all that may happen to them."""

    def __init__(self, simulation: Simulation, figures: Figures) -> None:
        simulation.reset()
        self.simulation = simulation
        self.figures = figures
        self.watch = Watch(simulation)
        self.workers: list[Actor | None] = [None] * WORKERS
        self.dead: list[Actor] = []
        self.late = False
        """A superseded worker went on."""
        self.known: list[Expected] = []
        self.parked: list[str] = []
        self.look()

    # ---- producers

    @step(
        3,
        lambda self: len(self.simulation.expected) < _MOST_BATCHES,
        requests=st.integers(1, 6),
        handler=st.sampled_from([None, TASK, STREAM, HOOK]),
        key=st.sampled_from([None, "one", "two"]),
        mode=st.sampled_from(["file", "inline"]),
        attempts=st.integers(1, 3),
        priority=st.integers(0, 1),
        max_cost=st.sampled_from([None, "1000"]),
        dies_after=st.none() | st.integers(1, 15),
    )
    def submit(
        self, requests: int, handler: str | None, key: str | None, dies_after: int | None, attempts: int, **options: Any
    ) -> None:
        """A producer submits a batch, or dies on the way."""
        simulation = self.simulation
        batch_id = f"b{simulation.submitted:04d}"
        prompts = {f"{key or batch_id}-{n}": f"say {key or batch_id}-{n}" for n in range(requests)}
        expected = Expected(batch_id, prompts, handler, key, simulation.time.time())
        simulation.expected[batch_id] = expected
        answer: list[Batch | None] = []
        actor = Actor(
            f"producer of {batch_id}",
            lambda: answer.append(simulation.submit(expected, max_attempts=attempts, **options)),
        )
        actor.step(dies_after or _TO_THE_END)
        self.dead.append(actor)
        self.check_end(actor)
        expected.recorded = bool(simulation.known(batch_id))
        if answer and not expected.recorded:
            # There is one of this key: it was returned, or was of other content.
            standing = [one for one in simulation.expected.values() if one.key == key and one is not expected]
            assert key is not None, f"{batch_id} was not recorded"
            assert standing, f"{batch_id} was not recorded, and nothing else"

    @step(1, lambda self: self.known, which=_which)
    def cancel(self, which: int) -> None:
        self.simulation.queue.get(_one(self.known, which).id).cancel()

    @step(1, lambda self: self.known, which=_which)
    def delete(self, which: int) -> None:
        expected = _one(self.known, which)
        try:
            self.simulation.queue.get(expected.id).delete()
        except BatchNotFinished:
            return
        expected.deleted = True

    # ---- the broker and the workers

    @step(3)
    def tick(self) -> None:
        """Sends what is due."""
        for queue in Queue:
            self.simulation.tick(queue)

    @step(1, lambda self: self.simulation.bag, trouble=True, which=_which)
    def lose_message(self, which: int) -> None:
        self.simulation.bag.pop(which % len(self.simulation.bag))

    @step(12, lambda self: self.simulation.bag, messages=st.integers(1, 8))
    def work(self, messages: int) -> None:
        """A worker handles some messages, undisturbed."""
        for _ in range(messages):
            if self.simulation.bag:
                self.check_end(self.simulation.run(0, *self.simulation.bag.pop(0)))

    @step(12, lambda self: self.simulation.bag and None in self.workers, which=_which, points=_few, again=st.booleans())
    def receive(self, which: int, points: int, again: bool) -> None:
        """A worker gets a message and begins; the broker may give the same to another one later."""
        bag = self.simulation.bag
        stage, message = _one(bag, which) if again else bag.pop(which % len(bag))
        number = self.workers.index(None)
        self.workers[number] = self.simulation.actor(number, stage, message)
        self.go_on(number, points)

    @step(20, lambda self: any(self.workers), which=_which, points=_points)
    def go(self, which: int, points: int) -> None:
        """A worker goes on for some points; the others stay frozen."""
        self.go_on(self.busy(which), points)

    @step(3, lambda self: any(self.workers), which=_which)
    def finish(self, which: int) -> None:
        """A worker goes on to the end of its message."""
        self.go_on(self.busy(which), _TO_THE_END)

    @step(2, lambda self: any(self.workers), trouble=True, which=_which)
    def kill(self, which: int) -> None:
        """A worker never goes on, and does not clean up."""
        number = self.busy(which)
        actor = self.workers[number]
        assert actor is not None
        self.dead.append(actor)
        self.workers[number] = None
        self.figures.killed += 1

    @step(1, lambda self: any(self.workers), trouble=True, which=_which, points=_points, cut=_cut)
    def cut(self, which: int, points: int, cut: str) -> None:
        """The next command of a worker loses its connection, before or after it is done."""
        number = self.busy(which)
        actor = self.workers[number]
        assert actor is not None
        actor.cut = cut
        self.go_on(number, points)

    # ---- time

    @step(3, seconds=st.sampled_from([1, 10, 45, 61, 130, 700, 4_000, 21_000]))
    def pass_time(self, seconds: int) -> None:
        self.simulation.pass_by(seconds)

    @step(15, lambda self: not self.simulation.bag)
    def wait(self) -> None:
        """Until the next thing is due; its message is sent."""
        self.simulation.wait()
        self.tick()

    # ---- the provider

    @step(
        12,
        lambda self: self.live(),
        which=_which,
        rows=st.lists(st.sampled_from(Row), min_size=1, max_size=3),
        end=st.sampled_from(_ENDS),
        with_output=st.booleans(),
        shuffle=st.integers(0, 9),
    )
    def end_job(self, which: int, **how: Any) -> None:
        self.simulation.provider.finish(_one(self.live(), which), **how)

    @step(3, lambda self: self.live())
    def answer_all(self) -> None:
        """All jobs succeed."""
        for job in self.live():
            self.simulation.provider.finish(job, JobState.SUCCEEDED, [Row.OK], with_output=True, shuffle=0)

    @step(1, lambda self: self.live(), which=_which)
    def run_job(self, which: int) -> None:
        _one(self.live(), which).state = JobState.RUNNING

    @step(1, lambda self: self.simulation.provider.by_name, trouble=True, which=_which, output_only=st.booleans())
    def lose_job(self, which: int, output_only: bool) -> None:
        job = _one(list(self.simulation.provider.by_name.values()), which)
        if not output_only or job.output is not None:
            self.simulation.provider.lose(job, output_only=output_only)

    @step(1, lambda self: self.live(), trouble=True, which=_which, seconds=st.integers(1, 59))
    def hide_job(self, which: int, seconds: int) -> None:
        """A job is not found under its name, though it is there."""
        self.simulation.provider.hide(_one(self.live(), which), seconds)

    @step(1, seconds=st.integers(0, 59), ranged=st.booleans(), slow=st.integers(0, 2))
    def provider_is(self, seconds: float, ranged: bool, slow: int) -> None:
        """Jobs made from now on: when they are listed, how their output is read, how soon uploads are ready."""
        provider = self.simulation.provider
        provider.lag, provider.ranged, provider.slow = seconds, ranged, slow

    @step(2, trouble=True, fault=st.sampled_from([one for one in Fault if one is not Fault.MISSING]))
    def fail_create(self, fault: Fault) -> None:
        self.simulation.provider.faults["create"] = fault

    @step(
        2,
        trouble=True,
        method=st.sampled_from(_METHODS),
        fault=st.sampled_from([Fault.LOST_CALL, Fault.LOST_REPLY, Fault.THROTTLED, Fault.DENIED]),
    )
    def fail_call(self, method: str, fault: Fault) -> None:
        self.simulation.provider.faults[method] = fault

    @step(1, lambda self: self.simulation.provider.uploads, trouble=True, which=_which)
    def lose_upload(self, which: int) -> None:
        del self.simulation.provider.uploads[_one(list(self.simulation.provider.uploads), which)]

    # ---- handlers

    @step(6, lambda self: self.simulation.in_hand, which=_which, failed=_failed, again=st.booleans())
    def answer(self, which: int, failed: list[int] | None, again: bool) -> None:
        """A handler takes or gives back what it has; its broker may give it the same again."""
        in_hand = self.simulation.in_hand
        segment = _one(in_hand, which) if again else in_hand.pop(which % len(in_hand))
        self.simulation.answer(segment, failed=segment.only[:1] if failed and segment.only else failed)

    @step(1, lambda self: self.simulation.in_hand, trouble=True, which=_which)
    def lose_delivery(self, which: int) -> None:
        self.simulation.in_hand.pop(which % len(self.simulation.in_hand))

    @step(1, trouble=True, times=st.integers(1, 4))
    def fail_handler(self, times: int) -> None:
        self.simulation.handler_fails = times

    @step(3, lambda self: self.parked, which=_which, again=st.booleans())
    def end_letter(self, which: int, again: bool) -> None:
        """A person has a parked segment delivered again, or drops it."""
        letter = _one(self.parked, which)
        if again:
            self.simulation.letters.redeliver(letter)
        else:
            self.simulation.expected[letter.rpartition("-")[0]].dropped = True
            self.simulation.letters.drop(letter)

    # ---- the store

    @step(2, restores=True)
    def back_up(self) -> None:
        self.simulation.back_up()

    @step(1, lambda self: self.simulation.backup, restores=True)
    def restore(self) -> None:
        """All processes end, the store is put back to the time of its backup, and they start again."""
        self.dead += filter(None, self.workers)
        self.workers = [None] * WORKERS
        self.simulation.restore()

    # ---- checks

    def look(self) -> None:
        """Checks the simulation after a step."""
        self.figures.steps += 1
        seen = self.simulation.look()
        check_step(self.simulation, seen)
        self.known = [expected for expected in self.simulation.expected.values() if expected.id in seen.counted]
        self.parked = seen.parked

    def end(self) -> None:
        """All work ends without the frozen workers; then these wake up, late; then all batches are deleted."""
        simulation = self.simulation
        simulation.rest()
        for number, actor in enumerate(self.workers):
            if actor is not None:
                self.go_on(number, _TO_THE_END)
        simulation.rest()
        simulation.sweep()
        self.look()
        check_rest(simulation, late=self.late)
        for expected in self.known:
            simulation.queue.get(expected.id).delete()
            expected.deleted = True
        simulation.rest()
        simulation.sweep()
        check_rest(simulation, late=self.late)
        self.figures.runs += 1
        self.figures.twins += simulation.provider.excused

    def close(self) -> None:
        """Ends the threads that never ended."""
        for actor in [*self.dead, *filter(None, self.workers)]:
            actor.abandon()

    # ---- how

    def possible(self, without: frozenset[str]) -> tuple[str, ...]:
        """The names of the steps that can come now, each as often as it weighs."""
        return tuple(
            name for name, one in STEPS.items() if name not in without and one.when(self) for _ in range(one.weight)
        )

    def go_on(self, number: int, points: int) -> None:
        actor = self.workers[number]
        assert actor is not None
        before = self.watch.before(actor)
        self.figures.superseded += before is not None
        self.late |= before is not None
        actor.step(points)
        self.watch.after(actor, before)
        if actor.done:
            self.workers[number] = None
            self.check_end(actor)

    @staticmethod
    def check_end(actor: Actor) -> None:
        if actor.error is not None:
            raise AssertionError(f"{actor.name} raised {actor.error!r} at {actor.at}") from actor.error

    def busy(self, which: int) -> int:
        return _one([number for number, actor in enumerate(self.workers) if actor is not None], which)

    def live(self) -> list[MachineJob]:
        return [job for job in self.simulation.provider.all if job.live]


def _one(things: list[T], which: int) -> T:
    return things[which % len(things)]
