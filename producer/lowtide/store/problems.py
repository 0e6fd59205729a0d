"""Problems of a batch: why it makes no progress, or why its results are not delivered."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

from lowtide.protocol import BatchRecord, FailedDelivery, Member, Queue
from lowtide.redaction import redacted
from lowtide.text import counted

NOT_STORED = "results cannot be stored: "
"""The start of a batch's problem while its results cannot be joined with their requests."""
REFUSED = "Redis refuses a command: "
"""The start of the problem of what fails because of a damaged key in Redis, or of a permission that lacks there."""
_MOST_OF_JOBS = 3


def problems(
    batch: BatchRecord, jobs: Iterable[tuple[str, str | None]], *, silence: str = "", unserved: str = ""
) -> list[str]:
    """The problems of a batch, in words, the worst first; empty where all is well.

    - `jobs`: ids of jobs, each with the reason why its last try failed. A finished batch needs none of them: what a
      job of its bundle waits for concerns other batches.
    - `silence`: the reason why its handler would not be reached now.
    - `unserved`: the reason why no worker works on it.
    """
    found = [text for text in (unserved, batch.problem) if text]
    if batch.event_problem:
        found.append(f"the end is not reported to {batch.on_finished or batch.on_progress}: {batch.event_problem}")
    needed = jobs if batch.finished is None else ()
    return [_line(text) for text in (*found, *_of_delivery(batch, silence), *_of_jobs(needed))]


def _of_delivery(batch: BatchRecord, silence: str) -> list[str]:
    last, failed = batch.delivery_problem, batch.delivery_failed
    found = []
    failure = last
    # A damaged note about the attempt does not hide the reason.
    with suppress(ValueError, OverflowError, OSError):
        failure = f"{_attempt(failed)}: {last}" if last and failed else last
    if batch.undelivered and (why := silence or failure):
        found.append(f"{counted(batch.undelivered, 'segment')} undelivered: {why}")
    if batch.parked:
        because = f": {last}" if last else ""
        found.append(f"{counted(batch.parked, 'segment')} parked, because every attempt to deliver failed{because}")
    return found


def _attempt(failed: FailedDelivery) -> str:
    """A failed attempt, and when the next one comes. A time stays the same from one status to the next."""
    segment = Member.parse(failed.segment)
    of = f" of {failed.most}" if failed.most else ""
    due = time.strftime("%H:%M:%S UTC", time.gmtime(failed.due))
    is_last = 0 < failed.most <= failed.attempt
    then = f"the last one: the segment is parked at {due}" if is_last else f"the next at {due}"
    job = segment.job.rpartition("-")[2]
    return f"segment {segment.number} of job {job}: attempt {failed.attempt}{of} failed, {then}"


def _of_jobs(jobs: Iterable[tuple[str, str | None]]) -> list[str]:
    """The problems of jobs, the commonest first."""
    numbers: dict[str, list[str]] = {}
    for job, problem in jobs:
        if problem:
            numbers.setdefault(problem, []).append(job.rpartition("-")[2])
    worst = sorted(numbers.items(), key=lambda one: -len(one[1]))
    found = [
        f"{f'job {those[0]}' if len(those) == 1 else counted(len(those), 'job')} will be retried: {text}"
        for text, those in worst[:_MOST_OF_JOBS]
    ]
    if more := len(worst) - len(found):
        found.append(f"jobs have {counted(more, 'other problem')}")
    return found


def _line(text: str) -> str:
    """The text on one line, without characters that move a terminal's cursor: much of it comes from outside."""
    return "".join(char if char.isprintable() else " " for char in redacted(text))


def needed_queues(batch: BatchRecord) -> tuple[Queue, ...]:
    """The queues whose workers have something to do for a batch."""
    if batch.finished is None:
        return tuple(Queue)
    return (Queue.RESULTS,) if batch.undelivered else ()
