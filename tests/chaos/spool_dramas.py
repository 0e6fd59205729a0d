"""What can happen to the spool, a drama each; the name says what happens."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable

from tests.chaos.crowd import THREADS, at_work, crowd, end, sweeping
from tests.chaos.invariants import Figures
from tests.chaos.world import World
from tests.waiting import wait_until


def the_spool_is_away_for_a_while(world: World) -> Figures:
    batches, worker = at_work(world, *THREADS)
    spool = world.directory / "spool"
    spool.rename(spool.with_name("away"))
    spool.touch()
    try:
        wait_until(lambda: worker.text.count("SpoolError") > 2, timeout=20, what="the worker tries in vain")
    finally:
        spool.unlink()
        spool.with_name("away").rename(spool)
    return end(world, batches, alive=[worker])


def the_spool_is_full_for_a_while(world: World) -> Figures:
    """Files longer than 150 bytes cannot be written, as on a disk without room."""
    batches = crowd(world)
    worker = sweeping(world, *THREADS)
    pid = worker.forged.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (150, before[1]))
    try:
        wait_until(lambda: _failures(world) > 2, timeout=15, what="jobs that could not be collected")
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    return end(world, batches, alive=[worker])


def _failures(world: World) -> int:
    return sum(int(world.redis.hget(key, "failures") or 0) for key in world.redis.scan_iter("lowtide:job:*"))


def the_disk_of_the_spool_is_full_for_a_while(world: World) -> Figures:
    """A file system of its own, filled up; where nobody may mount one, the file of `the_spool_is_full` must do."""
    spool = world.directory / "spool"
    spool.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "chaos", str(spool)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        return the_spool_is_full_for_a_while(world)
    try:
        batches = crowd(world)
        ballast = spool / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        worker = sweeping(world, *THREADS)
        wait_until(lambda: "No space left" in worker.text, timeout=15, what="the worker notices")
        ballast.unlink()
        figures = end(world, batches, alive=[worker])
        world.clear_stage()
    finally:
        subprocess.run(["umount", "-l", str(spool)], check=False)
    return figures


DRAMAS: dict[str, Callable[[World], Figures]] = {
    "the spool is away for a while": the_spool_is_away_for_a_while,
    "files cannot grow for a while": the_spool_is_full_for_a_while,
    "the disk of the spool is full for a while": the_disk_of_the_spool_is_full_for_a_while,
}
