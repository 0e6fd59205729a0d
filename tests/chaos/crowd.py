"""Batches and workers that most dramas begin with, and how they end."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.invariants import Allowed, Figures, check
from tests.chaos.world import ForgedWorker, Submitted, World
from tests.waiting import wait_until

PREFORK = ("-P", "prefork", "-c", "2")
THREADS = ("-P", "threads", "-c", "4")
_SWEEP = {"LOWTIDE_SWEEP_SECONDS": "0.5"}


def crowd(world: World) -> list[Submitted]:
    """Three batches: by file, inline, and one with results that its handler refuses at first."""
    return [
        world.submit(8, marks={1: "[[error:8:1]]"}),
        world.submit(6, mode="inline"),
        world.submit(5, flaky=True),
    ]


def sweeping(world: World, *options: str, **env: str) -> ForgedWorker:
    """A worker that sweeps often."""
    return world.worker(*options, **(_SWEEP | env))


def at_work(world: World, *options: str, **env: str) -> tuple[list[Submitted], ForgedWorker]:
    """A crowd, and a worker that has begun to create its jobs."""
    batches = crowd(world)
    worker = sweeping(world, *options, **env)
    wait_until(lambda: world.emulator.stats().calls.get("batches.create"), timeout=10, what="work goes on")
    return batches, worker


def end(
    world: World,
    crowd: Sequence[Submitted],
    allowed: Allowed | None = None,
    *,
    alive: Sequence[ForgedWorker] = (),
    kills: int = 0,
    restarts: int = 0,
) -> Figures:
    """Waits for the end with a worker that sweeps, and checks everything; some workers must have lived to see it."""
    world.release_sweep()
    world.rest(crowd, timeout=40)
    figures = check(world, crowd, allowed) + Figures(kills=kills, restarts=restarts)
    for worker in alive:
        assert worker.alive, worker.text
    return figures
