"""All of Lowtide in one process, for the state machine: one server, a spool, a provider, and workers that are threads.

The scripts, stages, producers' calls and handlers' answers are the project's own. Only their surroundings are not:
the broker is a bag of messages in the hands of the test, the provider is in memory, time passes when the test says so.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import redis
from tests.chaos.machine_actors import Actor, MachineTime, PacedRedis, PacedSpool, WatchedClock, current, pace, point
from tests.chaos.machine_output import Row
from tests.chaos.machine_provider import MachineProvider
from tests.chaos.machine_state import LOOK, Expected, Seen

from lowtide import Batch, BatchQueue, Request
from lowtide.errors import IdempotencyConflict, SpoolError
from lowtide.protocol import BatchFiles, Queue, Stage, arguments, keys
from lowtide.states import FINISHED_BATCH, JobState
from lowtide.store import DeadLetters, DeliveryClient
from lowtide_worker.handlers import BatchEvent, Delivery, HandlerFailed
from lowtide_worker.host import tasks
from lowtide_worker.runtime import Runtime
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import Dispatch

MODEL = "gemini-3.5-flash"
STREAM, TASK, HOOK = "stream://machine", "machine.tasks.take", "https://machine.example/hooks"
WORKERS = 3
SETTLE = 60.0
PROVIDER_TIMEOUT = 60.0
_MOST_ROUNDS = 600
_MOST_OFFERS = 5
RETENTION, ORPHAN = 604_800.0, 86_400.0
_decode = msgspec.json.decode


class MachineHandler:
    """A handler whose answers the test gives, or one that takes everything at once unless it must fail."""

    def __init__(self, simulation: Simulation, *, answers: bool) -> None:
        self.answers = answers
        self._simulation = simulation

    def hand_over(self, delivery: Delivery) -> None:
        point("hand over")
        if self._simulation.handler_fails:
            self._simulation.handler_fails -= 1
            raise HandlerFailed("as ordered")
        if self.answers:
            self._simulation.in_hand.append(delivery)
            return
        try:
            self._simulation.take(delivery)
        except SpoolError as gone:
            # The files of a deleted batch, which the store knows again since a restore.
            raise HandlerFailed(str(gone)) from gone

    def notify(self, event: BatchEvent) -> None:
        raise HandlerFailed(f"no batch here names a handler of batch events, as {event.delivery_id} needs")


class Simulation:
    """One for all examples: `reset` makes it new."""

    def __init__(self, url: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.redis = PacedRedis.from_url(url)
        # Nothing is to wait for a disk here; the tests that kill the server do.
        self.redis.config_set("appendonly", "no")
        self.time = MachineTime(self.redis)
        PacedSpool.clock = self.time
        self._take_seams(patch)
        self.settings = _settings(url, folder)
        self.provider = MachineProvider(self.time, patience=PROVIDER_TIMEOUT + SETTLE)
        self.runtimes = [self._runtime() for _ in range(WORKERS)]
        self.spool = self.runtimes[0].spool
        self.queue = BatchQueue(self.settings)
        self.deliveries = DeliveryClient(self.settings)
        self.letters = DeadLetters(self.settings)
        self._look = self.redis.register_script(LOOK)
        self.reset()

    def _take_seams(self, patch: pytest.MonkeyPatch) -> None:
        """Gives the code under test the machine's connection, spool, broker, time and chances."""
        for module in ("lowtide.store.batches", "lowtide_worker.runtime"):
            patch.setattr(f"{module}.connect", lambda _: self.redis)
        for module in ("lowtide.queue", "lowtide.store.delivery", "lowtide_worker.runtime"):
            patch.setattr(f"{module}.Spool", PacedSpool)
        patch.setattr("lowtide_worker.runtime.Clock", WatchedClock)
        patch.setattr("lowtide.queue.new_batch_id", self._new_id)
        patch.setattr("lowtide.announcing.sender", lambda _: self)
        patch.setattr("lowtide.backoff.random", SimpleNamespace(uniform=lambda *_: 1.0))
        patch.setattr(tasks, "send", lambda _, dispatches: self.send(dispatches))
        patch.setattr(tasks, "pump", lambda _, queue: self.tick(queue))
        pace(patch, self.time)

    def _runtime(self) -> Runtime:
        runtime = Runtime(self.settings)
        # Here a process renews its leases at its points only: one that the test does not run is frozen.
        vars(runtime)["leases"] = SimpleNamespace(kept=lambda _: nullcontext())
        # A flush in a thread of its own would be a call to Redis that the run does not order.
        vars(runtime)["measurements"] = SimpleNamespace(ran_stage=lambda *_: None, stage_failed=lambda *_: None)
        # Now, for a script that is loaded in the middle of a run would be one point more.
        _ = runtime.clock, runtime.ledger, runtime.deliveries, runtime.admission
        runtime._providers["gemini"] = self.provider
        runtime._handlers |= {TASK: MachineHandler(self, answers=True), HOOK: MachineHandler(self, answers=False)}
        runtime.wake = self.tick
        return runtime

    def _new_id(self) -> str:
        self.submitted += 1
        return f"b{self.submitted - 1:04d}"

    def reset(self) -> None:
        """An empty simulation."""
        self.redis.flushall()
        self.time.start()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.provider.reset()
        self.submitted = 0
        self.bag: list[tuple[Stage, dict[str, Any]]] = []
        self.expected: dict[str, Expected] = {}
        self.in_hand: list[Delivery] = []
        self.taken: dict[str, set[str]] = {}
        self.results_of: dict[str, str] = {}
        self.handler_fails = 0
        self.offered_again: Counter[str] = Counter()
        self.backup: dict[bytes, bytes] = {}
        self.backed_up: list[Expected] = []
        self.restored = False
        self.restart()

    def restart(self) -> None:
        """Has all processes forget what they know, and start anew."""
        for runtime in self.runtimes:
            runtime._job_lookups.clear()
            vars(runtime).pop("installation", None)
            runtime.installation.check()
        vars(self.queue).pop("_installation", None)
        # Else a submit would be some points shorter than in the run that a failure is repeated with.
        self.queue._absences._asked.clear()
        self.runtimes[0].clock.start_sweep()

    def back_up(self) -> None:
        """Keeps a copy of all that the store holds now."""
        names = cast("list[bytes]", self.redis.keys("lowtide:*"))
        self.backup = {name: cast("bytes", self.redis.dump(name)) for name in names}
        self.backed_up = [replace(expected) for expected in self.expected.values() if expected.recorded]

    def restore(self) -> None:
        """Puts the copy in the place of the store, whose processes are all gone; spool and provider know more."""
        for name in cast("list[bytes]", self.redis.keys("lowtide:*")):
            self.redis.delete(name)
        for name, value in self.backup.items():
            self.redis.restore(name, 0, value)
        for expected in self.expected.values():
            expected.forgotten = True
        for expected in self.backed_up:
            # One that was deleted since has no files: it ends with an error, and gives up its key.
            lost = not self.spool.exists(BatchFiles(expected.id).requests)
            self.expected[expected.id] = replace(expected, forgotten=lost)
        self.bag.clear()
        for job in self.provider.all:
            # What is deleted there cannot be found again: its requests run again.
            job.doubtful |= job.deleted
        self.restored = True
        self.restart()

    # ---- the broker

    def send(self, dispatches: Iterable[Dispatch]) -> None:
        """Puts messages in the bag. The sender may die between two."""
        for member, stage, token in dispatches:
            point("send")
            self.bag.append((stage, arguments(member, token)))

    def send_task(self, name: str, *, kwargs: dict[str, Any], **_: Any) -> None:
        """As producers send."""
        point("send")
        self.bag.append((Stage(name), kwargs))

    def tick(self, queue: Queue) -> None:
        """Has what is due on one clock sent: any process may do that, whatever it holds."""
        actor = current()
        if actor is not None:
            actor.claimed = True
        self.send(self.runtimes[0].clock.claim(queue))

    # ---- workers

    def actor(self, number: int, stage: Stage, message: Mapping[str, Any]) -> Actor:
        """A worker that has got a message."""
        runtime = self.runtimes[number]
        return Actor(f"worker {number}: {stage} {dict(message)}", lambda: _run(runtime, stage, dict(message)))

    def run(self, number: int, stage: Stage, message: Mapping[str, Any]) -> Actor:
        """Handles a message from its beginning to its end."""
        actor = self.actor(number, stage, message)
        actor.finish()
        return actor

    # ---- producers

    def submit(self, expected: Expected, **options: Any) -> Batch | None:
        """Submits; None where the idempotency key is another content's."""
        requests = [Request(key=key, contents=prompt) for key, prompt in expected.prompts.items()]
        try:
            return self.queue.submit(
                requests, model=MODEL, on_result=expected.handler, idempotency_key=expected.key, **options
            )
        except IdempotencyConflict:
            return None

    def known(self, batch_id: str) -> dict[str, str]:
        """The fields of a batch; empty where there is none."""
        found = cast("dict[bytes, bytes]", self.redis.hgetall(keys.batch(batch_id)))
        return {name.decode(): value.decode() for name, value in found.items()}

    def look(self) -> Seen:
        """All that the checks after each step need, in one look; the time goes on a little."""
        self.time.pass_by(0.001)
        found = self._look(keys=[keys.PARKED], args=[keys.batch(""), *self.expected])
        parked, *counted = found
        return Seen(
            counted={one: int(count) for one, count in zip(self.expected, counted, strict=True) if int(count) != -1},
            parked=[member.decode().removeprefix("segment:") for member in parked],
        )

    def forgets(self, expected: Expected) -> bool:
        """Whether a batch may be gone by now."""
        return expected.deleted or expected.forgotten or self.time.time() - expected.submitted >= RETENTION

    # ---- handlers

    def answer(self, delivery: Delivery, *, failed: list[int] | None) -> None:
        """The handler takes a delivery, or gives it back: as a whole, or the lines `failed`."""
        try:
            if failed is None:
                self.take(delivery)
                self.deliveries.taken(delivery.delivery_id)
                return
            if failed:
                self.take(delivery, without=failed)
            error, only = "failed", failed or delivery.only
        except SpoolError as gone:
            error, only = str(gone), delivery.only
        self.deliveries.hand_back(delivery.delivery_id, only=only, attempt=delivery.attempt, error=error)

    def take(self, delivery: Delivery, *, without: Sequence[int] = ()) -> None:
        """A handler has these results now, but for some lines."""
        results = self.results_of.setdefault(delivery.delivery_id, delivery.results)
        assert results == delivery.results, f"{delivery} had {results} before"
        taken = self.taken.setdefault(delivery.batch_id, set())
        for position, result in enumerate(map(_decode, self.spool.lines(delivery.results))):
            if position not in without and (delivery.only is None or position in delivery.only):
                taken.add(result["key"])

    def delivered(self, expected: Expected) -> set[str]:
        """The keys of the results that its handler was given."""
        if expected.handler == STREAM:
            for _, entry in cast("Any", self.redis.xrange(keys.stream("machine"))):
                if entry[b"batch_id"].decode() == expected.id:
                    only = _decode(entry[b"only"]) if entry[b"only"] else None
                    self.take(
                        Delivery(expected.id, entry[b"delivery_id"].decode(), entry[b"results"].decode(), 1, only, {})
                    )
        return self.taken.get(expected.id, set())

    # ---- rest

    def rest(self) -> None:
        """Runs everything to its end, without any more failures."""
        self.provider.calm()
        self.handler_fails = 0
        for _ in range(_MOST_ROUNDS):
            if not self._round():
                return
        problems = {member: self.redis.hget(keys.entity(member), "problem") for member in self.due()}
        raise AssertionError(f"no rest: {self.due()}, bag: {self.bag}, problems: {problems}")

    def _round(self) -> bool:
        """Does what can be done now, or waits for what comes next; False where there is nothing."""
        for job in self.provider.all:
            self.provider.finish(job, JobState.SUCCEEDED, [Row.OK], with_output=True, shuffle=0)
        while self.in_hand:
            self.answer(self.in_hand.pop(), failed=None)
        for letter in self.look().parked:
            self.offered_again[letter] += 1
            if self.restored and self.offered_again[letter] > _MOST_OFFERS:
                # After a restore, a handler may give back what is not stored any more: a person drops that.
                self.expected[letter.rpartition("-")[0]].dropped = True
                self.letters.drop(letter)
            else:
                self.letters.redeliver(letter)
        for queue in Queue:
            self.tick(queue)
        if self.bag:
            messages, self.bag = self.bag, []
            for stage, message in messages:
                actor = self.run(0, stage, message)
                assert actor.error is None, f"{actor.name}: {actor.error!r}"
            return True
        coming = [at for member, at in self.due().items() if not self._permanent(member)]
        if not coming:
            return False
        self.pass_by(max(0.0, min(coming) - self.time.time()) + 0.001)
        return True

    def due(self) -> dict[str, float]:
        """The members of the clocks, each with its time."""
        found = [cast("Any", self.redis.zrange(keys.clock(queue), 0, -1, withscores=True)) for queue in Queue]
        return {member.decode(): at for members in found for member, at in members}

    def _permanent(self, member: str) -> bool:
        """Whether it waits for what may never come: the next sweep, the end of a finished batch's retention."""
        if member == keys.SWEEP_MEMBER:
            return True
        state = self.redis.hget(keys.entity(member), "state")
        return member.startswith("batch:") and state in {one.encode() for one in FINISHED_BATCH}

    def sweep(self) -> None:
        """Has the sweep run, once orphans are old enough."""
        self.pass_by(ORPHAN + 1)
        self.rest()

    def wait(self) -> None:
        """Lets time pass until the next thing is due."""
        now = self.time.time()
        coming = [at for at in self.due().values() if at > now]
        if coming:
            self.pass_by(min(coming) - now + 0.001)

    def pass_by(self, seconds: float) -> None:
        """Lets time pass, for the machine and for what ends by itself in the store."""
        self.time.pass_by(seconds)
        for name in cast("Any", self.redis.keys("lowtide:limit:*")):
            self.redis.pexpire(name, max(1, int(self.redis.pttl(name) - seconds * 1000)))
        self.provider.stop()


def _run(runtime: Runtime, stage: Stage, message: dict[str, Any]) -> None:
    try:
        tasks._run(runtime, stage, message)
    except redis.RedisError:
        # As `tasks.run` does: the lease lapses, and the work comes again.
        return


def _settings(url: str, folder: Path) -> WorkerSettings:
    values: dict[str, Any] = {
        "redis_url": url,
        "spool_url": str(folder),
        "provider": "gemini",
        "GOOGLE_API_KEY": "key",
        "max_requests_per_job": 3,
        "max_active_jobs": 2,
        "segment_rows": 2,
        "segment_bytes": 400,
        "provider_timeout_seconds": PROVIDER_TIMEOUT,
        "create_settle_seconds": SETTLE,
        "max_job_losses": 2,
        "job_deadline_seconds": 20_000,
        "batch_deadline_seconds": 100_000,
        "handler_window": 2,
        "max_delivery_attempts": 3,
        "retention_seconds": RETENTION,
        "orphan_seconds": ORPHAN,
        "missing_job_seconds": 4_000,
    }
    return WorkerSettings(_env_file=None, **values)
