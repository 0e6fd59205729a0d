"""Runs many small scenarios at once, each in a stack to itself: they wait far more than they compute."""

from __future__ import annotations

import os
import queue
import random
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Generic, TypeVar

from tests.chaos.chaos_stack import ChaosStack
from tests.cloud import Cloud

from lowtide_emulator import Settings as EmulatorSettings

T = TypeVar("T")
POOL_SIZE = 4
FAST, SLOW = 0.3, 3.0
"""The run time of a provider job, in seconds: SLOW where a second job, or a file that is read, is to be seen."""
_READ_SECONDS = 0.5
"""Time for which an uploaded file is PROCESSING on a SLOW stack, in seconds: it is when the upload is answered."""


class StackPool:
    """Stacks that are wiped and used again, and a few threads that use them.

    On Vertex AI each has its spool in a folder or in Cloud Storage, by chance; `CHAOS_SEED` repeats the choice.
    """

    def __init__(self, new_folder: Callable[[str], Path], cleanup: ExitStack, cloud: Cloud | None = None) -> None:
        self._new_folder = new_folder
        self._cloud = cloud
        self._idle: dict[float, queue.SimpleQueue[ChaosStack]] = {
            FAST: queue.SimpleQueue(),
            SLOW: queue.SimpleQueue(),
        }
        self._open = cleanup.enter_context(ExitStack())
        # Before the stacks go, the threads do.
        self.threads = cleanup.enter_context(ThreadPoolExecutor(POOL_SIZE))
        cleanup.callback(self.threads.shutdown, wait=True, cancel_futures=True)
        seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 32))
        self._chance = random.Random(seed)
        wanted = [FAST] * POOL_SIZE + [SLOW] * (POOL_SIZE // 2)
        stacks = [self._new(seconds) for seconds in wanted]
        list(self.threads.map(ChaosStack.handler_app, stacks))
        for seconds, stack in zip(wanted, stacks, strict=True):
            self._idle[seconds].put(stack)
        if cloud is not None:
            print(f"\nCHAOS_SEED={seed}: spools in {[stack.env['LOWTIDE_SPOOL_URL'] for stack in stacks]}")

    def _new(self, running_seconds: float) -> ChaosStack:
        read = _READ_SECONDS if running_seconds == SLOW else 0.0
        settings = EmulatorSettings(running_seconds=running_seconds, file_processing_seconds=read)
        spool = _spool(self._cloud, self._chance)
        stack = ChaosStack(self._new_folder("stack"), settings, cloud=self._cloud, **spool)
        return self._open.enter_context(stack)

    def run(self, scenario: Callable[[ChaosStack], T], running_seconds: float = FAST) -> T:
        """Runs one scenario in a wiped stack; all workers but the handler app are gone at its end.

        A stack whose scenario has failed is not used again: its Redis may be stopped, or its settings changed.
        """
        idle = self._idle[running_seconds]
        stack = idle.get()
        try:
            stack.wipe()
            return scenario(stack)
        except BaseException:
            stack.kill_workers()
            stack = self._new(running_seconds)
            stack.handler_app()
            raise
        finally:
            stack.kill_workers()
            idle.put(stack)


def _spool(cloud: Cloud | None, chance: random.Random) -> dict[str, str]:
    if cloud is None or chance.random() < 0.5:
        return {}
    return {"LOWTIDE_SPOOL_URL": f"gs://{cloud.new_bucket()}/spool"}


class Plan(Generic[T]):
    """The scenarios that a module has to run: it begins with all that was selected, and each test waits for its own."""

    def __init__(self, pool: StackPool, run: Callable[[Hashable], T]) -> None:
        self._pool = pool
        self._run = run
        self._runs: dict[Hashable, Future[T]] = {}

    def begin(self, names: Iterable[Hashable]) -> None:
        """Starts what will be asked for: where several processes share the tests, one process runs a whole module."""
        for name in names:
            self._runs[name] = self._pool.threads.submit(self._run, name)

    def result(self, name: Hashable) -> T:
        """Returns the outcome of one. Raises what it raised."""
        if name not in self._runs:
            self._runs[name] = self._pool.threads.submit(self._run, name)
        return self._runs[name].result()

    def results(self) -> list[T]:
        """Returns the outcomes of all that have succeeded so far."""
        return [
            run.result() for run in self._runs.values() if run.done() and not run.cancelled() and not run.exception()
        ]

    def end(self) -> None:
        """Cancels what has not begun."""
        for run in self._runs.values():
            run.cancel()
