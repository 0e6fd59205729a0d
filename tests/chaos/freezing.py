"""A worker that is frozen at a crash point until another has done all the work, and then continues."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Hashable
from dataclasses import replace
from typing import Any, cast

from tests.chaos.chaos_stack import ChaosStack, Submitted
from tests.chaos.crash_scenarios import Scenario, fresh
from tests.chaos.invariants import Figures, check
from tests.stack import Worker
from tests.waiting import wait_until

_CHANGING = (
    "lowtide:counters",
    "lowtide:ticked:",
    "lowtide:sweep",
    "lowtide:clock:",
    "lowtide:listeners:",
    "lowtide:handlers",
    "lowtide:webhooks",
    "lowtide:serving",
    "lowtide:latencies",
)


def frozen(stack: ChaosStack, scenario: Scenario, point: str) -> Figures:
    """Runs a scenario in which a worker is frozen at `point` and thaws when all is over: nothing may change then."""
    one = scenario.submit(stack)
    scenario.before(stack, one)
    late = stack.worker(*scenario.options, "-l", "debug", **scenario.env, LOWTIDE_FREEZE_AT=point)
    scenario.during(stack, one)
    wait_until(lambda: _stands_still(late), what=f"{point} is reached, see {late.log}")
    scenario.after(stack, one)
    other = fresh(stack)
    scenario.end(stack, one)
    # Its other threads may have been writing.
    allowed = replace(scenario.allowed, drafts=True)
    figures = check(stack, one.all, allowed)
    other.kill()
    before = _state(stack, one)

    os.kill(late.pid, signal.SIGCONT)
    wait_until(lambda: _idle(late), what=f"it ends what it was at, see {late.log}")

    assert late.alive, late.text
    after = _state(stack, one)
    assert not _difference(before, after), f"{point}: {_difference(before, after)}\n{late.text[-3000:]}"
    check(stack, one.all, allowed)
    late.kill()
    return figures


def _stands_still(worker: Worker) -> bool:
    assert worker.alive, worker.text[-3000:]
    return worker.stands_still


def _idle(worker: Worker) -> bool:
    """Whether each task that it has received has ended."""
    return len(re.findall(r" Task \S+ received", worker.text)) == len(
        re.findall(r" Task \S+ succeeded in", worker.text)
    )


def _state(stack: ChaosStack, one: Submitted) -> dict[Hashable, Any]:
    """All that others can see: the spool's files, what Redis knows, and the jobs and files at the provider."""
    root, client = stack.directory / "spool", stack.redis
    state: dict[Hashable, Any] = {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
    for key in client.scan_iter("lowtide:*", count=1000):
        if not key.decode().startswith(_CHANGING):
            state[key] = _value(client, key)
    for queue in ("lowtide.jobs", "lowtide.results"):
        state[queue] = sorted(set(stack.on_clock(queue)) - {b"sweep"})
    state["jobs"] = sorted((record.name, record.state, record.deleted) for record in stack.emulator.jobs())
    state["creates"] = stack.emulator.stats().calls.get("batches.create")
    state["uploads"] = stack.uploads()
    return state


def _value(client: Any, key: bytes) -> object:
    kind = cast("bytes", client.type(key))
    if kind == b"hash":
        return client.hgetall(key)
    return client.zrange(key, 0, -1, withscores=True) if kind == b"zset" else client.dump(key)


def _difference(before: dict[Hashable, Any], after: dict[Hashable, Any]) -> dict[Hashable, tuple[Any, Any]]:
    return {
        name: (before.get(name), after.get(name))
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name) and not _is_own_orphan(name, after)
    }


def _is_own_orphan(name: Hashable, after: dict[Hashable, Any]) -> bool:
    """Whether it is a file that no record names any more, which the late worker has removed: a piece of the output that
    it wrote, or a large single that is gathered."""
    return name not in after and ("/output-" in str(name) or str(name).startswith("singles/"))
