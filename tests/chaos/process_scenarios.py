"""Faults of processes, a scenario each; the name says what happens."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Sequence
from functools import partial

from tests.chaos.chaos_stack import ChaosStack
from tests.chaos.faults import rule
from tests.chaos.invariants import Figures
from tests.chaos.producers import PREFORK, THREADS, at_work, end, submit_three, sweeping
from tests.waiting import wait_until


def whole_workers_are_killed_again_and_again(stack: ChaosStack) -> Figures:
    batches = submit_three(stack)
    for _ in range(5):
        # Each finds work, however much of it the one before has done.
        batches.append(stack.submit(2))
        calls = _calls(stack)
        worker = sweeping(stack, *PREFORK)
        wait_until(lambda: _calls(stack) > calls + 4, what="work goes on")  # noqa: B023 - now
        worker.kill()
    sweeping(stack, *PREFORK)
    return end(stack, batches, kills=5)


def children_are_killed_under_a_living_parent(stack: ChaosStack) -> Figures:
    batches = submit_three(stack)
    worker = sweeping(stack, *PREFORK)
    chance = random.Random(1)
    kills = 0
    for _ in range(5):
        calls = _calls(stack)
        batches.append(stack.submit(2))
        wait_until(lambda: _calls(stack) > calls + 2, what="work goes on")  # noqa: B023 - now
        if children := worker.children():
            os.kill(chance.choice(children), signal.SIGKILL)
            kills += 1
    assert kills
    return end(stack, batches, kills=kills, alive=[worker])


def _calls(stack: ChaosStack) -> int:
    return sum(stack.emulator.stats().calls.values())


def every_child_dies_at(point: str, stack: ChaosStack) -> Figures:
    """The parent forks a new child, which dies at the same place, until a better worker comes."""
    one = stack.submit(8, marks={1: "[[error:8:1]]"}, flaky=True)
    worker = sweeping(stack, *PREFORK, LOWTIDE_CRASH_AT=point)
    wait_until(lambda: "exited prematurely" in worker.text or "SIGKILL" in worker.text, what="a child dies")
    assert worker.alive, worker.text
    worker.kill()
    sweeping(stack, *PREFORK)
    return end(stack, [one], kills=1)


def one_of_two_workers_is_stopped_warmly(pool: Sequence[str], stack: ChaosStack) -> Figures:
    stack.emulator.set_faults([rule("batches.create", "delay", times=3, seconds=0.7)])
    with at_work(stack, *pool) as (batches, first):
        sweeping(stack, *pool)
        assert first.stop() == 0, first.text
    return end(stack, batches)


def a_worker_is_frozen_longer_than_its_lease(call: str, stack: ChaosStack) -> Figures:
    """Another takes over; the frozen one thaws with its work long done by others, and changes nothing."""
    stack.emulator.set_faults([rule(call, "delay", times=1, seconds=0.5)])
    batches = submit_three(stack)
    frozen = sweeping(stack, *THREADS)
    wait_until(lambda: stack.emulator.stats().calls.get(call), what="the call")
    os.kill(frozen.pid, signal.SIGSTOP)
    sweeping(stack, *THREADS)
    wait_until(lambda: all(one.batch.status().finished for one in batches), what="the other has done its work")
    os.kill(frozen.pid, signal.SIGCONT)
    return end(stack, batches, alive=[frozen])


SCENARIOS: dict[str, Callable[[ChaosStack], Figures]] = {
    "whole workers are killed again and again": whole_workers_are_killed_again_and_again,
    "children are killed under a living parent": children_are_killed_under_a_living_parent,
    "every child dies before the create call": partial(every_child_dies_at, "create.before-call"),
    "every child dies after the create call": partial(every_child_dies_at, "create.after-call"),
    "every child dies between grant and record": partial(every_child_dies_at, "deliver.before-record"),
    "every child dies after it handed over": partial(every_child_dies_at, "deliver.after-hand-over"),
    "one of two workers is stopped warmly (threads)": partial(one_of_two_workers_is_stopped_warmly, THREADS),
    "one of two workers is stopped warmly (prefork)": partial(one_of_two_workers_is_stopped_warmly, PREFORK),
    "a worker is frozen in a create": partial(a_worker_is_frozen_longer_than_its_lease, "batches.create"),
    "a worker is frozen in a download": partial(a_worker_is_frozen_longer_than_its_lease, "files.download"),
    "a worker is frozen in an upload": partial(a_worker_is_frozen_longer_than_its_lease, "files.upload.chunk"),
}
