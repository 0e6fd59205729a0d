"""Batches and workers that most scenarios begin with, and how they end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from tests.chaos.chaos_stack import ChaosStack, Submitted
from tests.chaos.invariants import Allowed, Figures, check
from tests.stack import Worker
from tests.waiting import wait_until

PREFORK = ("-P", "prefork", "-c", "2")
THREADS = ("-P", "threads", "-c", "4")
_SWEEP = {"LOWTIDE_SWEEP_SECONDS": "0.5"}


def submit_three(stack: ChaosStack) -> list[Submitted]:
    """Three batches: by file, inline, and one with results that its handler refuses at first."""
    return [
        stack.submit(8, marks={1: "[[error:8:1]]"}),
        stack.submit(6, mode="inline"),
        stack.submit(5, flaky=True),
    ]


def sweeping(stack: ChaosStack, *options: str, **env: str) -> Worker:
    """A worker that sweeps often."""
    return stack.worker(*options, **(_SWEEP | env))


@contextmanager
def at_work(stack: ChaosStack, *options: str, **env: str) -> Iterator[tuple[list[Submitted], Worker]]:
    """Three batches, and a worker that has begun to create their jobs; none of these ends before the block does."""
    with stack.held_jobs():
        batches = submit_three(stack)
        worker = sweeping(stack, *options, **env)
        wait_until(lambda: stack.emulator.stats().calls.get("batches.create"), what="work goes on")
        yield batches, worker


def end(
    stack: ChaosStack,
    batches: Sequence[Submitted],
    allowed: Allowed | None = None,
    *,
    alive: Sequence[Worker] = (),
    kills: int = 0,
    restarts: int = 0,
) -> Figures:
    """Waits for the end with a worker that sweeps, and checks everything; some workers must have lived to see it.

    Where processes were killed, drafts of theirs may be left.
    """
    stack.release_sweep()
    stack.rest(batches)
    allowed = allowed or Allowed()
    figures = check(stack, batches, replace(allowed, drafts=bool(kills))) + Figures(kills=kills, restarts=restarts)
    for worker in alive:
        assert worker.alive, worker.text
    return figures
