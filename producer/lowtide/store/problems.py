"""Problems of a batch: why it makes no progress, or why its results are not delivered."""

from __future__ import annotations

from collections.abc import Iterable

from lowtide.protocol import BatchRecord
from lowtide.redaction import redacted

_MOST_OF_JOBS = 3


def problems(
    batch: BatchRecord, jobs: Iterable[tuple[str, str | None]], *, silence: str = "", unserved: str = ""
) -> list[str]:
    """The problems of a batch, in words, the worst first; empty where all is well.

    - `jobs`: ids of jobs, each with the reason why its last try failed.
    - `silence`: the reason why its handler would not be reached now.
    - `unserved`: the reason why no worker works on it.
    """
    found = [text for text in (unserved, batch.problem) if text]
    return [_line(text) for text in (*found, *_of_delivery(batch, silence), *_of_jobs(jobs))]


def _of_delivery(batch: BatchRecord, silence: str) -> list[str]:
    last = batch.delivery_problem
    found = []
    if batch.undelivered and (why := silence or last):
        found.append(f"{_segments(batch.undelivered)} undelivered: {why}")
    if batch.parked:
        because = f": {last}" if last else ""
        found.append(f"{_segments(batch.parked)} parked, because every attempt to deliver failed{because}")
    return found


def _of_jobs(jobs: Iterable[tuple[str, str | None]]) -> list[str]:
    """The problems of jobs, the commonest first."""
    numbers: dict[str, list[str]] = {}
    for job, problem in jobs:
        if problem:
            numbers.setdefault(problem, []).append(job.rpartition("-")[2])
    worst = sorted(numbers.items(), key=lambda one: -len(one[1]))
    found = [
        f"job {those[0]} will be retried: {text}" if len(those) == 1 else f"{len(those):,} jobs will be retried: {text}"
        for text, those in worst[:_MOST_OF_JOBS]
    ]
    if more := len(worst) - len(found):
        found.append(f"jobs have {more:,} other problems")
    return found


def _line(text: str) -> str:
    """The text on one line, without characters that move a terminal's cursor: much of it comes from outside."""
    return "".join(char if char.isprintable() else " " for char in redacted(text))


def _segments(count: int) -> str:
    return f"{count:,} segment{'' if count == 1 else 's'}"
