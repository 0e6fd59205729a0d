"""A scenario of provider faults: the rules for the emulator, a batch, and the expected outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.chaos_stack import ChaosStack, Submitted
from tests.chaos.invariants import Allowed, Figures, check
from tests.chaos.pool import FAST

from lowtide import BatchState

Rule = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class FaultScenario:
    """Faults, a batch, and the expected outcome."""

    faults: Callable[[str], Sequence[Rule]] = lambda _: ()
    """From the batch's id."""
    count: int = 8
    marks: Mapping[int, str] = field(default_factory=lambda: {1: "[[error:8:1]]"})
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    allowed: Allowed = field(default_factory=Allowed)
    ends: Mapping[str, int] | None = None
    """The number of requests with each status; by default all succeed."""
    jobs: int | None = None
    """The largest number of provider jobs; None: any number. Requests of several jobs that run again may share one."""
    state: BatchState | None = None
    struck: bool = True
    """Every rule must have fired, or the scenario shows nothing."""
    during: Callable[[ChaosStack, Submitted], object] = lambda *_: None
    running_seconds: float = FAST


def run_scenario(scenario: FaultScenario, stack: ChaosStack) -> Figures:
    """Submits the batch, lets a worker run it to its end among the faults, and checks everything."""
    one = stack.submit(scenario.count, marks=scenario.marks, **scenario.options)
    stack.emulator.set_faults(scenario.faults(one.id))
    stack.release_sweep()
    worker = stack.worker("-P", "threads", "-c", "4", **({"LOWTIDE_SWEEP_SECONDS": "0.5"} | dict(scenario.env)))
    scenario.during(stack, one)
    stack.rest([one])
    assert worker.alive, worker.text
    figures = check(stack, [one], scenario.allowed)
    if scenario.struck:
        idle = [fault.rule for fault in stack.emulator.faults() if not fault.fired]
        assert not idle, f"never fired: {idle}"
    status = one.batch.status()
    ends = Counter({name: getattr(status, name) for name in ("succeeded", "failed", "expired", "cancelled")})
    assert +ends == Counter(scenario.ends or {"succeeded": scenario.count}), f"{+ends}: {status}"
    assert scenario.state in (None, status.state)
    assert scenario.jobs is None or figures.jobs_created <= scenario.jobs, f"{figures.jobs_created} provider jobs"
    return figures


def rule(
    on: str, kind: str, *, times: int | None = 1, match: str | None = None, after: int = 0, **params: object
) -> Rule:
    """A fault rule of the emulator."""
    return {"on": on, "kind": kind, "times": times, "after": after, "match": match, "params": params}


def job(batch: str, number: int) -> str:
    """The end of a job's display name."""
    return f"-{batch}-{number}"


def rules(*given: Rule) -> Callable[[str], Sequence[Rule]]:
    """The same rules for any batch."""
    return lambda _: given
