"""Scenarios of the machines that workers run on; the name says what happens."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.chaos_stack import HASTE, ChaosStack
from tests.chaos.faults import rule
from tests.chaos.invariants import Figures
from tests.chaos.producers import PREFORK, THREADS, at_work, end, submit_three, sweeping
from tests.waiting import wait_until

_APP = "tests.chaos.other_worker"
_DAY = 86_400
_LONGER_THAN_ALL = 2 + sum(
    float(HASTE[f"LOWTIDE_{name}_SECONDS"]) for name in ("LEASE", "PROVIDER_TIMEOUT", "CREATE_SETTLE")
)


def everything_is_suspended(stack: ChaosStack) -> Figures:
    """A laptop is closed: Redis, workers and handlers are frozen for longer than every lease and every wait."""
    stack.emulator.set_faults([rule("batches.create", "delay", times=2, seconds=0.5)])
    with at_work(stack, *THREADS) as (batches, worker):
        second = sweeping(stack, *PREFORK)
        pids = [stack.redis_server.pid, *(one.process.pid for one in stack.workers), *second.children()]
        for pid in pids:
            os.kill(int(pid or 0), signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > _LONGER_THAN_ALL, what="all leases lapse")
    # Redis wakes last, as the one that has most to load.
    for pid in reversed(pids):
        os.kill(int(pid or 0), signal.SIGCONT)
    return end(stack, batches, alive=[worker, second])


def clocks_are_a_day_wrong_and_jump(stack: ChaosStack) -> Figures:
    """One worker lives in tomorrow, one in yesterday; then they change places."""
    early, late = (stack.directory / name for name in ("early", "late"))
    _set(early, _DAY)
    _set(late, -_DAY)
    stack.emulator.set_faults([rule("batches.create", "delay", times=4, seconds=0.5)])
    with stack.held_jobs():
        batches = submit_three(stack)
        workers = [
            stack.worker(*pool, app=_APP, LOWTIDE_SWEEP_SECONDS="0.5", CLOCK_OFFSET=str(offset))
            for pool, offset in ((THREADS, early), (PREFORK, late))
        ]
        wait_until(lambda: stack.emulator.stats().calls.get("batches.create"), what="work goes on")
        _set(early, -_DAY)
        _set(late, _DAY)
    return end(stack, batches, alive=workers)


def workers_are_of_two_versions(stack: ChaosStack) -> Figures:
    """The older one leaves to the newer one what it may not understand, also while both take messages."""
    with stack.held_jobs():
        batches = submit_three(stack)
        newer = stack.worker(*THREADS, app=_APP, LOWTIDE_SWEEP_SECONDS="0.5", NEWER_VERSION="3")
        older = sweeping(stack, *THREADS, "-l", "debug")
        wait_until(lambda: "'skipped': 'newer'" in older.text, what="the older one is given something newer")
    return end(stack, batches, alive=[newer, older])


def _set(clock: Path, offset: int) -> None:
    whole = clock.with_suffix(".new")
    whole.write_text(str(offset))
    whole.replace(clock)


SCENARIOS: dict[str, Callable[[ChaosStack], Figures]] = {
    "everything is suspended": everything_is_suspended,
    "clocks are a day wrong and jump": clocks_are_a_day_wrong_and_jump,
    "workers are of two versions": workers_are_of_two_versions,
}
