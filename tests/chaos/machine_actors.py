"""Threads that move only on command, and Redis and spool clients that stop before every operation.

A strict baton: the test and all actors are threads, but only one of them runs at any time. So the order in which
simulated processes do things is a sequence of choices, and choosing the same again repeats the same run.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Any, cast

import pytest
import redis
from redis.client import Pipeline

from lowtide.protocol import Member, Stage
from lowtide.spool import Spool
from lowtide_worker import crashpoints
from lowtide_worker.state import Clock, Held, NotHeld

TIME_KEY = "machine:time"
_REAL_TIME = "redis.call('TIME')"
_OUR_TIME = f"redis.call('HMGET', '{TIME_KEY}', 's', 'us')"
_SECOND = 1_000_000
_STUCK_SECONDS = 60.0

_here = threading.local()


class Abandoned(BaseException):
    """Unwinds the thread of a killed process when its example is over; nothing it touches then does anything."""


class Actor:
    """A simulated process at one piece of work. It is frozen except while the test lets it run."""

    def __init__(self, name: str, work: Callable[[], object]) -> None:
        self.name = name
        self.at = "start"
        """The last point that it reached."""
        self.held: Held[Any] | None = None
        self.claimed = False
        """It sent what was due, whatever that was about."""
        self.intent_stored = 0.0
        """When its intent to create was in the store, by the machine's time."""
        self.cut: str | None = None
        """Its next command loses its connection: `before` or `after` the server did it."""
        self.error: BaseException | None = None
        self.done = False
        self._work = work
        self._points = 0
        self._over = False
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def step(self, points: int) -> None:
        """Lets it run past so many points, or to its end."""
        self._points = points
        self._go.release()
        if not self._back.acquire(timeout=_STUCK_SECONDS):
            raise AssertionError(f"{self.name} neither stops nor ends behind {self.at}")

    def finish(self) -> None:
        """Lets it run to its end."""
        while not self.done:
            self.step(1 << 30)

    def abandon(self) -> None:
        """Ends the thread of one that is never to run again."""
        if not self.done:
            self._over = True
            self.step(1)
            self._thread.join(_STUCK_SECONDS)

    def pause(self, name: str) -> None:
        """Called in its thread: a point where others may come in between."""
        if not self._over:
            self.at = name
            self._points -= 1
            if self._points <= 0:
                self._back.release()
                self._go.acquire()
        if self._over:
            raise Abandoned

    def _run(self) -> None:
        _here.actor = self
        self._go.acquire()
        try:
            if not self._over:
                self._work()
        except Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001 - the test checks it
            self.error = error
        self.done = True
        self._back.release()


def current() -> Actor | None:
    """The actor whose thread this is; None for the test itself."""
    return getattr(_here, "actor", None)


def point(name: str) -> None:
    """A place where an actor may be frozen, killed or overtaken. The test itself passes."""
    actor = current()
    if actor is not None:
        actor.pause(name)


class MachineTime:
    """Stands for the module `time` in the code under test: seconds pass when the test says so."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._now = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def start(self) -> None:
        """Begins at a whole second of the real time, as the spool's files are dated by it."""
        self._now = int(time.time()) * _SECOND
        self._tell()

    def pass_by(self, seconds: float) -> None:
        """Lets time pass."""
        self._now += round(seconds * _SECOND)
        self._tell()

    def _tell(self) -> None:
        seconds, micros = divmod(self._now, _SECOND)
        self._redis.hset(TIME_KEY, mapping={"s": str(seconds), "us": str(micros)})

    def time(self) -> float:
        """Unix seconds."""
        return self._now / _SECOND

    def monotonic(self) -> float:
        """The same: it never goes back."""
        return self._now / _SECOND

    def sleep(self, seconds: float) -> None:
        """Raises: a sleeping actor would stop everything."""
        raise AssertionError(f"slept for {seconds} s")


class PacedRedis(redis.Redis):
    """A client whose every command is a point, and whose scripts read the machine's time."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        point(f"redis {args[0]}")
        with _cuts():
            return super().execute_command(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> PacedPipeline:
        return PacedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def time(self, **_: Any) -> tuple[int, int]:
        seconds, micros = cast("list[bytes]", self.hmget(TIME_KEY, "s", "us"))
        return int(seconds), int(micros)

    def register_script(self, script: Any) -> Any:
        registered = super().register_script(str(script).replace(_REAL_TIME, _OUR_TIME))
        # At once: else the first run of all would have points that others have not.
        redis.Redis.execute_command(self, "SCRIPT LOAD", registered.script)
        return registered


class PacedPipeline(Pipeline):
    """A pipeline is one point, as it is one packet."""

    def execute(self, raise_on_error: bool = True) -> Any:
        point("redis pipeline")
        with _cuts():
            return super().execute(raise_on_error)


@contextmanager
def _cuts() -> Iterator[None]:
    actor = current()
    cut = actor.cut if actor else None
    if actor is not None:
        actor.cut = None
    if cut == "before":
        raise redis.ConnectionError("cut before the command")
    yield
    if cut == "after":
        raise redis.ConnectionError("cut before the reply")


class PacedSpool(Spool):
    """A spool whose every change is a point, and whose files are dated by the machine's time."""

    clock: MachineTime

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        with self._paced(name, super().write(name)) as file:
            yield file

    @contextmanager
    def write_working(self, name: str) -> Iterator[IO[bytes]]:
        with self._paced(name, super().write_working(name)) as file:
            yield file

    @contextmanager
    def _paced(self, name: str, writing: AbstractContextManager[IO[bytes]]) -> Iterator[IO[bytes]]:
        point(f"write {name}")
        with writing as file:
            yield file
            point(f"complete {name}")
        self._date(name)

    def create(self, name: str, data: bytes) -> bool:
        point(f"create {name}")
        created = super().create(name, data)
        if created:
            self._date(name)
        return created

    def _date(self, name: str) -> None:
        os.utime(self.uri(name).removeprefix("file://"), (self.clock.time(), self.clock.time()))

    def delete(self, name: str) -> None:
        point(f"delete {name}")
        super().delete(name)

    def delete_folder(self, folder: str, *names: str) -> None:
        point(f"delete {folder}")
        super().delete_folder(folder, *names)


class WatchedClock(Clock):
    """The clock, remembering with each actor what it holds."""

    def begin(self, stage: Stage, member: Member, token: int) -> Held[Any] | NotHeld:
        held = super().begin(stage, member, token)
        actor = current()
        if actor is not None and isinstance(held, Held):
            actor.held = held
        return held


def pace(patch: pytest.MonkeyPatch, clock: MachineTime) -> None:
    """Puts points where the crash tests have theirs, and the machine's time in place of the real one."""

    def reach(name: str) -> None:
        actor = current()
        if actor is not None and name == "create.before-call":
            actor.intent_stored = clock.time()
        point(name)

    ours = {id(time): clock, id(crashpoints.reach): reach}
    if deadlines := sys.modules.get("lowtide_worker.deadlines"):
        ours[id(deadlines.elapsed)] = clock.monotonic
    for name, module in list(sys.modules.items()):
        if module is None or not name.startswith(("lowtide.", "lowtide_worker.")):
            continue
        for attribute, value in list(vars(module).items()):
            if id(value) in ours:
                patch.setattr(module, attribute, ours[id(value)])
    patch.setattr(Held, "now", lambda _: clock.time())
