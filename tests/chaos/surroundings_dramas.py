"""Dramas of the machines that workers run on; the name says what happens."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.crowd import PREFORK, THREADS, at_work, crowd, end, sweeping
from tests.chaos.fault_dramas import rule
from tests.chaos.invariants import Figures
from tests.chaos.world import HASTE, World
from tests.waiting import wait_until

_APP = "tests.chaos.other_worker"
_DAY = 86_400
_LONGER_THAN_ALL = 2 + sum(
    float(HASTE[f"LOWTIDE_{name}_SECONDS"]) for name in ("LEASE", "PROVIDER_TIMEOUT", "CREATE_SETTLE")
)


def everything_is_suspended(world: World) -> Figures:
    """A laptop is closed: Redis, workers and handlers stand still for longer than every lease and every wait."""
    world.emulator.set_faults([rule("batches.create", "delay", times=2, seconds=0.5)])
    batches, worker = at_work(world, *THREADS)
    second = sweeping(world, *PREFORK)
    pids = [world.redis_server.pid, *(one.process.pid for one in world.workers), *second.children()]
    for pid in pids:
        os.kill(int(pid or 0), signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > _LONGER_THAN_ALL, timeout=30, what="all leases lapse")
    # Redis wakes last, as the one that has most to load.
    for pid in reversed(pids):
        os.kill(int(pid or 0), signal.SIGCONT)
    return end(world, batches, alive=[worker, second])


def clocks_are_a_day_wrong_and_jump(world: World) -> Figures:
    """One worker lives in tomorrow, one in yesterday; then they change places."""
    early, late = (world.directory / name for name in ("early", "late"))
    _set(early, _DAY)
    _set(late, -_DAY)
    world.emulator.set_faults([rule("batches.create", "delay", times=4, seconds=0.5)])
    batches = crowd(world)
    workers = [
        world.worker(*pool, app=_APP, LOWTIDE_SWEEP_SECONDS="0.5", CLOCK_OFFSET=str(offset))
        for pool, offset in ((THREADS, early), (PREFORK, late))
    ]
    wait_until(lambda: world.emulator.stats().calls.get("batches.create"), timeout=15, what="work goes on")
    _set(early, -_DAY)
    _set(late, _DAY)
    return end(world, batches, alive=workers)


def workers_are_of_two_versions(world: World) -> Figures:
    """The older one leaves to the newer one what it may not understand, also while both take messages."""
    batches = crowd(world)
    newer = world.worker(*THREADS, app=_APP, LOWTIDE_SWEEP_SECONDS="0.5", NEWER_VERSION="3")
    older = sweeping(world, *THREADS)
    figures = end(world, batches, alive=[newer, older])
    assert "'skipped': 'newer'" in older.text, "the older one was never given anything newer"
    return figures


def _set(clock: Path, offset: int) -> None:
    whole = clock.with_suffix(".new")
    whole.write_text(str(offset))
    whole.replace(clock)


DRAMAS: dict[str, Callable[[World], Figures]] = {
    "everything is suspended": everything_is_suspended,
    "clocks are a day wrong and jump": clocks_are_a_day_wrong_and_jump,
    "workers are of two versions": workers_are_of_two_versions,
}
