"""The work during which a worker is killed: for each crash point, a batch whose way leads there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos.chaos_stack import NOTHING_AT_FIRST, ChaosStack, Submitted
from tests.chaos.handler_app import HANDLER
from tests.chaos.invariants import Allowed, is_gone
from tests.chaos.pool import FAST, SLOW
from tests.stack import Worker
from tests.waiting import wait_until

from lowtide import JobState

SOLO = ("-P", "solo")


def _nothing(stack: ChaosStack, one: Submitted) -> None:
    pass


def _at_rest(stack: ChaosStack, one: Submitted) -> None:
    stack.rest(one.all)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A batch, and what happens around it. `during` runs while the worker lives that will be killed."""

    submit: Callable[[ChaosStack], Submitted]
    env: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = SOLO
    before: Callable[[ChaosStack, Submitted], None] = _nothing
    during: Callable[[ChaosStack, Submitted], None] = _nothing
    after: Callable[[ChaosStack, Submitted], None] = _nothing
    end: Callable[[ChaosStack, Submitted], None] = _at_rest
    allowed: Allowed = field(default_factory=Allowed)
    running_seconds: float = FAST


def _plain(stack: ChaosStack, **options: Any) -> Submitted:
    """Two jobs; two rows need a second attempt, one has no answer; one result is refused by its handler at first."""
    marks = {1: "[[error:8:1]]", 2: NOTHING_AT_FIRST, 6: "[[safety]]"}
    return stack.submit(8, marks=marks, flaky=True, notified=True, max_cost="1000", **options)


def _stragglers(stack: ChaosStack) -> Submitted:
    """Three jobs, each with a row that needs a second attempt and one that goes on: two more jobs ask for all."""
    marks = dict.fromkeys((1, 6, 11), "[[error:8:1]]") | dict.fromkeys((0, 5, 10), "[[continuation]]")
    return stack.submit(12, marks=marks)


def _small(stack: ChaosStack) -> Submitted:
    return stack.submit(4)


def _in_parts(stack: ChaosStack, **options: Any) -> Submitted:
    """A job from which two answers go on, one of them twice, and from which one row needs a second attempt."""
    marks = {0: "[[continuation]]", 1: "[[error:8:1]]", 2: "[[continuation:3]]"}
    return stack.submit(4, marks=marks, max_cost="1000", **options)


def _faults(*rules: Mapping[str, object]) -> Callable[[ChaosStack, Submitted], None]:
    return lambda stack, _: stack.emulator.set_faults(rules)


def _twins(stack: ChaosStack, one: Submitted) -> None:
    """Both creates of the first job are accepted and not answered, and the list knows of the first too late."""
    job = stack.display_name(one.id, 1)
    stack.emulator.set_faults(
        [
            {"on": "batches.create", "kind": "drop_after", "times": 2, "match": job},
            {"on": "batches.list", "kind": "empty_list_lag", "times": 1, "params": {"seconds": 3600}},
        ]
    )


def _cancel(stack: ChaosStack, one: Submitted) -> None:
    wait_until(lambda: any(job.state is JobState.RUNNING for job in one.batch.status().jobs), what="a job runs")
    one.batch.cancel()


def _delete(stack: ChaosStack, one: Submitted) -> None:
    stack.rest([one])
    one.deleted = True
    one.batch.delete()


def _delete_all(stack: ChaosStack, one: Submitted) -> None:
    stack.rest(one.all)
    for each in one.all:
        each.was_in, each.deleted = each.bundle, True
        each.batch.delete()


def _all_gone(stack: ChaosStack, one: Submitted) -> None:
    wait_until(lambda: all(map(is_gone, one.all)), timeout=180, what="the batches are gone")
    stack.rest(one.all)


def _cancel_one(stack: ChaosStack, one: Submitted) -> None:
    wait_until(
        lambda: any(job.state is JobState.RUNNING for job in one.batch.status().jobs), timeout=180, what="a job runs"
    )
    one.batch.cancel()


def _cancel_waiting(stack: ChaosStack, one: Submitted) -> None:
    wait_until(lambda: any(job.problem for job in one.batch.status().jobs), timeout=180, what="a job is refused")
    one.batch.cancel()


def _cancel_others(stack: ChaosStack, one: Submitted) -> None:
    one.batch.wait(timeout=180)
    for other in one.others:
        other.batch.cancel()
    stack.rest(one.all)


def _delete_in_vain(stack: ChaosStack, one: Submitted) -> None:
    stack.rest([one])
    one.deleted = True
    refused = {"kind": "status", "params": {"code": 503}}
    stack.emulator.set_faults([{"on": "batches.delete", **refused}, {"on": "files.delete", **refused}])
    one.batch.delete()


def _gone(stack: ChaosStack, one: Submitted) -> None:
    wait_until(partial(is_gone, one), what="the batch is gone")
    stack.rest([one])


def _known(stack: ChaosStack, one: Submitted) -> None:
    wait_until(lambda: not is_gone(one), what="the batch is accepted")
    stack.rest([one])


def _refused(stack: ChaosStack, one: Submitted) -> None:
    worker = stack.workers[-1]
    error = stack.inbox(one) / "error.json"
    wait_until(lambda: error.exists() or not worker.alive or worker.stands_still, what="the refusal")


def _corrected(stack: ChaosStack, one: Submitted) -> None:
    stack.write_inbox(one)
    (stack.inbox(one) / "error.json").unlink(missing_ok=True)
    stack.tell_of(one)


def _index(stack: ChaosStack, one: Submitted) -> tuple[Path, Path]:
    path = stack.directory / "spool" / "batches" / one.id / "index.bin"
    return path, path.with_name("away.bin")


def _take_index_away(stack: ChaosStack, one: Submitted) -> None:
    path, away = _index(stack, one)
    path.rename(away)


def _bring_index_back(stack: ChaosStack, one: Submitted) -> None:
    path, away = _index(stack, one)
    away.rename(path)


def _cancel_while_segments_wait(stack: ChaosStack, one: Submitted) -> None:
    """A first worker dies with the segments cut and not delivered; the cancel makes the waiting job due."""
    worker = stack.worker(*SOLO, LOWTIDE_CRASH_AT="collect.after-segments")
    wait_until(lambda: worker.killed, what="the segments wait")
    one.batch.cancel()


def _lost_and_swept(stack: ChaosStack, one: Submitted) -> None:
    """A create is accepted and not answered, and the list knows of it only after a second one was made.

    By then the first may have run to its end: what it cost is the price of such a list.
    """
    job = stack.display_name(one.id, 1)
    stack.emulator.set_faults(
        [
            {"on": "batches.create", "kind": "drop_after", "times": 1, "match": job},
            {"on": "batches.list", "kind": "empty_list_lag", "params": {"seconds": 3600}},
        ]
    )


def _second_create(stack: ChaosStack, one: Submitted) -> None:
    wait_until(lambda: stack.emulator.stats().calls.get("batches.create", 0) >= 3, what="the second create")
    stack.emulator.set_faults([])
    stack.release_sweep()


def _arrived(stack: ChaosStack, one: Submitted) -> None:
    stack.find_arrived(one)
    stack.rest([one])


def _single_file(stack: ChaosStack) -> tuple[Path, Path]:
    [path] = (stack.directory / "spool" / "singles").iterdir()
    return path, path.parent.with_name("away.json")


def _take_single_away(stack: ChaosStack, one: Submitted) -> None:
    path, away = _single_file(stack)
    one.away = path
    path.rename(away)


def _bring_single_back(stack: ChaosStack, one: Submitted) -> None:
    assert one.away
    one.away.parent.with_name("away.json").rename(one.away)


_ENDS_CANCELLED = Allowed(statuses=frozenset({"succeeded", "failed", "cancelled"}))
_BROKER = "shop-broker"

SCENARIOS = {
    "plain": Scenario(submit=_plain),
    "inline": Scenario(submit=partial(_plain, mode="inline")),
    "batches that share jobs": Scenario(submit=ChaosStack.submit_sharing),
    "stragglers of several jobs": Scenario(submit=_stragglers, env={"LOWTIDE_LINGER_SECONDS": "2"}),
    "answers in parts": Scenario(submit=_in_parts),
    "answers in parts, inline": Scenario(submit=partial(_in_parts, mode="inline")),
    "a deleted batch that shared a job": Scenario(
        submit=partial(ChaosStack.submit_sharing, handled=False), during=_delete_all, end=_all_gone
    ),
    "a batch that shared a job is cancelled": Scenario(
        submit=ChaosStack.submit_sharing,
        before=_faults({"on": "job", "kind": "stuck_running"}),
        during=_cancel_one,
        end=_cancel_others,
        allowed=_ENDS_CANCELLED,
    ),
    # Its upload exists already, and has lines that are not to be sent.
    "a batch is cancelled whose shared job waits": Scenario(
        submit=ChaosStack.submit_sharing,
        before=_faults({"on": "batches.create", "kind": "status", "params": {"code": 401}}),
        during=_cancel_waiting,
        after=_faults(),
        allowed=replace(_ENDS_CANCELLED, unsent=3),
    ),
    # Read by several ranges at once. The worker that goes on cuts otherwise, and first delivers all that the killed one
    # had put on the clock.
    "a job beyond the quota": Scenario(
        submit=_small,
        before=_faults({"on": "batches.create", "kind": "status", "times": 3, "params": {"code": 429}}),
    ),
    "an output in pieces": Scenario(
        submit=partial(ChaosStack.submit, count=40),
        env={"LOWTIDE_MAX_REQUESTS_PER_JOB": "40", "LOWTIDE_SEGMENT_ROWS": "1", "LOWTIDE_SEGMENT_BYTES": "700"},
    ),
    "rows that end without an answer": Scenario(
        submit=partial(ChaosStack.submit, count=8, max_attempts=1),
        before=_faults({"on": "job", "kind": "missing_rows"}),
        allowed=Allowed(unseen=True),
    ),
    "a create without reply": Scenario(
        submit=_plain, before=_faults({"on": "batches.create", "kind": "drop_after", "times": 1})
    ),
    "two creates without reply": Scenario(
        submit=_plain,
        before=_twins,
        allowed=Allowed(twins=1),
        running_seconds=SLOW,
        env={"LOWTIDE_CREATE_SETTLE_SECONDS": "0.2"},
    ),
    "a twin that shows late": Scenario(
        submit=_plain,
        before=_lost_and_swept,
        allowed=Allowed(twins=1, billed_again=4),
        running_seconds=SLOW,
        during=_second_create,
    ),
    "a cancelled batch": Scenario(
        submit=_small, before=_faults({"on": "job", "kind": "stuck_running"}), during=_cancel, allowed=_ENDS_CANCELLED
    ),
    "a deleted batch": Scenario(submit=_small, during=_delete, end=_gone),
    "a batch that cannot be deleted": Scenario(submit=_small, during=_delete_in_vain, after=_faults(), end=_gone),
    "an output that is gone": Scenario(
        submit=_small,
        allowed=Allowed(billed_again=4),
        before=_faults({"on": "files.download", "kind": "status", "times": 1, "params": {"code": 404}}),
    ),
    "a batch in the inbox": Scenario(submit=ChaosStack.leave_in_inbox, end=_known),
    "a batch in the inbox that is corrected": Scenario(
        submit=partial(ChaosStack.leave_in_inbox, broken=True),
        during=_refused,
        after=_corrected,
        end=_known,
    ),
    "requests that are added one by one": Scenario(submit=ChaosStack.add),
    "a request that arrives by a list of Redis": Scenario(submit=ChaosStack.arrive, end=_arrived),
    "a request whose file is away": Scenario(submit=ChaosStack.add, before=_take_single_away, after=_bring_single_back),
    "a spool that fails": Scenario(submit=_small, before=_take_index_away, after=_bring_index_back),
    "a handler that cannot be reached": Scenario(
        submit=partial(ChaosStack.submit, count=4, on_result=f"{_BROKER}:{HANDLER}@celery"),
        env={"LOWTIDE_BROKERS": json.dumps({"other": "memory://"})},
    ),
    "a cancel while segments wait": Scenario(
        submit=_plain,
        before=_cancel_while_segments_wait,
        options=(*SOLO, "-Q", "lowtide.jobs"),
        allowed=_ENDS_CANCELLED,
    ),
}


def undisturbed(stack: ChaosStack, scenario: Scenario) -> tuple[float, Submitted]:
    """Runs a scenario without a kill; returns the seconds from its first worker to rest."""
    one = scenario.submit(stack)
    scenario.before(stack, one)
    worker = fresh(stack)
    began = time.monotonic()
    scenario.during(stack, one)
    scenario.after(stack, one)
    scenario.end(stack, one)
    seconds = time.monotonic() - began
    # A worker that is killed may leave a draft.
    worker.stop()
    return seconds, one


def killed(stack: ChaosStack, scenario: Scenario, point: str) -> tuple[float, Submitted]:
    """Runs a scenario; the worker dies at `point` and a fresh one goes on.

    Returns the seconds from the first worker to rest, without those that the second took to start.
    """
    one = scenario.submit(stack)
    scenario.before(stack, one)
    began = time.monotonic()
    worker = stack.worker(*scenario.options, **scenario.env, LOWTIDE_CRASH_AT=point)
    scenario.during(stack, one)
    wait_until(lambda: not worker.alive, what=f"{point} is reached, see {worker.log}")
    assert worker.killed, f"{point}: the worker ended by itself: {worker.text[-3000:]}"
    scenario.after(stack, one)
    starts = time.monotonic()
    second = fresh(stack)
    starting = time.monotonic() - starts
    scenario.end(stack, one)
    seconds = time.monotonic() - began - starting
    second.kill()
    return seconds, one


def fresh(stack: ChaosStack) -> Worker:
    """A worker that goes on with all that is left."""
    stack.release_sweep()
    return stack.worker(*SOLO, LOWTIDE_SWEEP_SECONDS="1", LOWTIDE_BROKERS=json.dumps({_BROKER: stack.redis_server.url}))
