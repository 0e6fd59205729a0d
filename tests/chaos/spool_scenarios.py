"""Faults of the spool, a scenario each; the name says what happens."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable

from tests.chaos.chaos_stack import ChaosStack
from tests.chaos.invariants import Figures
from tests.chaos.producers import THREADS, at_work, end, submit_three, sweeping
from tests.waiting import wait_until


def the_spool_is_away_for_a_while(stack: ChaosStack) -> Figures:
    spool = stack.directory / "spool"
    with at_work(stack, *THREADS) as (batches, worker):
        # Between the two, a running worker could make the folder anew.
        os.kill(worker.pid, signal.SIGSTOP)
        wait_until(lambda: worker.stands_still, what="the worker stands still")
        spool.rename(spool.with_name("away"))
        spool.touch()
        os.kill(worker.pid, signal.SIGCONT)
    try:
        wait_until(lambda: worker.text.count("SpoolError") > 2, what="the worker tries in vain")
    finally:
        spool.unlink()
        spool.with_name("away").rename(spool)
    return end(stack, batches, alive=[worker])


def the_spool_is_full_for_a_while(stack: ChaosStack) -> Figures:
    """Files longer than 150 bytes cannot be written, as on a disk without room."""
    with at_work(stack, *THREADS) as (batches, worker):
        pid = worker.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (150, before[1]))
    try:
        wait_until(lambda: _failures(stack) > 2, what="jobs that could not be collected")
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    return end(stack, batches, alive=[worker])


def _failures(stack: ChaosStack) -> int:
    return sum(int(stack.redis.hget(key, "failures") or 0) for key in stack.redis.scan_iter("lowtide:job:*"))


def the_disk_of_the_spool_is_full_for_a_while(stack: ChaosStack) -> Figures:
    """A file system of its own, filled up; without the right to mount one, `the_spool_is_full` must suffice."""
    spool = stack.directory / "spool"
    spool.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "chaos", str(spool)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        return the_spool_is_full_for_a_while(stack)
    try:
        batches = submit_three(stack)
        ballast = spool / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        worker = sweeping(stack, *THREADS)
        wait_until(lambda: "No space left" in worker.text, what="the worker notices")
        ballast.unlink()
        figures = end(stack, batches, alive=[worker])
        stack.kill_workers()
    finally:
        subprocess.run(["umount", "-l", str(spool)], check=False)
    return figures


SCENARIOS: dict[str, Callable[[ChaosStack], Figures]] = {
    "the spool is away for a while": the_spool_is_away_for_a_while,
    "files cannot grow for a while": the_spool_is_full_for_a_while,
    "the disk of the spool is full for a while": the_disk_of_the_spool_is_full_for_a_while,
}
