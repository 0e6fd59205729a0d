"""Runs many small dramas at once, each in a world to itself: they wait far more than they compute."""

from __future__ import annotations

import queue
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Generic, TypeVar

from tests.chaos.forge import Forge
from tests.chaos.world import World
from tests.cloud import Cloud

from lowtide_emulator import Settings as EmulatorSettings

T = TypeVar("T")
LANES = 4
FAST, SLOW = 0.3, 3.0
"""How long a provider job runs, in seconds: SLOW where a second one is to be seen beside it."""


class Lanes:
    """Worlds that are wiped and used again, and a few threads that use them."""

    def __init__(
        self, forge: Forge, new_folder: Callable[[str], Path], cleanup: ExitStack, cloud: Cloud | None = None
    ) -> None:
        self._worlds: dict[float, queue.SimpleQueue[World]] = {FAST: queue.SimpleQueue(), SLOW: queue.SimpleQueue()}
        for seconds, pool in self._worlds.items():
            for _ in range(LANES if seconds == FAST else LANES // 2):
                world = World(new_folder("lane"), forge, EmulatorSettings(running_seconds=seconds), cloud=cloud)
                cleanup.enter_context(world)
                world.shop()
                pool.put(world)
        # Before the worlds go, the threads do.
        self.threads = cleanup.enter_context(ThreadPoolExecutor(LANES))
        cleanup.callback(self.threads.shutdown, wait=True, cancel_futures=True)

    def play(self, drama: Callable[[World], T], running_seconds: float = FAST) -> T:
        """One drama in a wiped world; all workers but the shop are gone at its end."""
        pool = self._worlds[running_seconds]
        world = pool.get()
        try:
            world.wipe()
            return drama(world)
        finally:
            world.clear_stage()
            pool.put(world)


class Programme(Generic[T]):
    """What a module has to play: it begins with all that was selected, and each test waits for its own."""

    def __init__(self, lanes: Lanes, play: Callable[[Hashable], T]) -> None:
        self._lanes = lanes
        self._play = play
        self._runs: dict[Hashable, Future[T]] = {}

    def begin(self, names: Iterable[Hashable]) -> None:
        """Starts what will be asked for: where several processes share the tests, a module is one process' own."""
        for name in names:
            self._runs[name] = self._lanes.threads.submit(self._play, name)

    def result(self, name: Hashable) -> T:
        """What became of one. Raises what it raised."""
        if name not in self._runs:
            self._runs[name] = self._lanes.threads.submit(self._play, name)
        return self._runs[name].result()

    def results(self) -> list[T]:
        """All that ended well so far."""
        return [run.result() for run in self._runs.values() if run.done() and not run.exception()]

    def end(self) -> None:
        """Leaves what has not begun."""
        for run in self._runs.values():
            run.cancel()
