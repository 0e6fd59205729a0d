"""Provider faults with a course of their own: a function each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.chaos.chaos_stack import ChaosStack, Submitted
from tests.chaos.invariants import Figures, check
from tests.chaos.pool import FAST, SLOW
from tests.waiting import wait_until

from lowtide_emulator import JobRecord


def never_more_live_than_allowed(stack: ChaosStack) -> Figures:
    """Six jobs of low priority, then two of high, where only two may live at once."""
    limits = {"LOWTIDE_MAX_ACTIVE_JOBS": "2", "LOWTIDE_MAX_REQUESTS_PER_JOB": "1", "LOWTIDE_SWEEP_SECONDS": "0.5"}
    with stack.held_jobs():
        low = stack.submit(6, priority=-5)
        stack.release_sweep()
        worker = stack.worker("-P", "threads", "-c", "4", **limits)
        wait_until(lambda: sum(record.live for record in stack.emulator.jobs()) == 2, what="two live")
        high = stack.submit(2, priority=5)
        wait_until(lambda: len(high.batch.status().jobs) == 2, what="the urgent ones are planned")
    stack.rest([low, high])
    assert worker.alive, worker.text
    records = stack.emulator.jobs()
    assert _most_at_once(records) == 2
    order = [one for record in records for one in ("low", "high") if _of(record, low if one == "low" else high)]
    # Two were live and at most two more on their way when the urgent ones came.
    assert max(place for place, one in enumerate(order) if one == "high") <= 5, order
    return check(stack, [low, high])


def _most_at_once(records: Sequence[JobRecord]) -> int:
    times = sorted({record.created for record in records})
    return max(sum(r.created <= t and (r.ended is None or t < r.ended) for r in records) for t in times)


def _of(record: JobRecord, one: Submitted) -> bool:
    return f"-{one.id}-" in record.display_name


def a_throttled_account_gets_through(stack: ChaosStack) -> Figures:
    """The account allows less than the settings: 429 again and again; nothing is paid twice."""
    one = stack.submit(6)
    storm = {"on": "batches.create", "kind": "status", "probability": 0.6, "seed": 4, "params": {"code": 429}}
    stack.emulator.set_faults([storm])
    # A lease of a second may lapse in an upload where the machine is busy: what it left, the sweep finds.
    stack.release_sweep()
    worker = stack.worker("-P", "threads", "-c", "4", LOWTIDE_MAX_REQUESTS_PER_JOB="1", LOWTIDE_SWEEP_SECONDS="0.5")
    stack.rest([one])
    assert worker.alive, worker.text
    figures = check(stack, [one])
    assert figures.jobs_created == 6
    return figures


PROCEDURES: dict[str, tuple[Callable[[ChaosStack], Figures], float]] = {
    "more jobs wait than may live": (never_more_live_than_allowed, SLOW),
    "an account is throttled most of the time": (a_throttled_account_gets_through, FAST),
}
"""Each with the seconds that its provider jobs run."""
