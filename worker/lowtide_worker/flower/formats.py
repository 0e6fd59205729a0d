"""Numbers, times and texts as the pages show them. The templates escape what these functions return."""

from __future__ import annotations

import re
import time

from lowtide import BatchState, BatchStatus, JobState, JobStatus, Usage, Waiting
from lowtide.budgets import cost_text
from lowtide.budgets import dollars as dollars
from lowtide.text import counted as counted
from lowtide.text import duration, on_one_line

_MOST_EVENTS = 10
SHORT = 24
"""Characters of the longest name that is never divided: a phone has room for it."""
_PATH = re.compile(r"(https?://[^\s/?#]+)[/?#]\S*")
_GOOD = frozenset({BatchState.COMPLETED, JobState.SUCCEEDED})
_BAD = frozenset({BatchState.FAILED, JobState.FAILED, JobState.LOST})
_ODD = frozenset(
    {
        BatchState.CANCELLING,
        BatchState.CANCELLED,
        BatchState.EXPIRED,
        JobState.PAUSED,
        JobState.PARTIALLY_SUCCEEDED,
        JobState.UNKNOWN,
    }
)
_ACTIVE = frozenset({BatchState.RUNNING, JobState.CREATING, JobState.UPDATING})


def plain(text: object) -> str:
    """Returns text from outside on one line, without characters that hide or reorder it."""
    return on_one_line(str(text))


def reason(text: object) -> str:
    """Returns a problem on one line, and of each URL only the host: the path of a webhook may be a secret."""
    return _PATH.sub(r"\1/…", plain(text))


def number(count: float) -> str:
    """Returns a whole number with separators."""
    return f"{int(count):,}"


def ago(moment: float) -> str:
    """Returns the time since a Unix time in words; for a time to come, the time until then."""
    seconds = time.time() - moment
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"


def span(seconds: float) -> str:
    """Returns a length of time in words."""
    return duration(seconds)


def utc(moment: float) -> str:
    """Returns a Unix time as the attribute `datetime` has it."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    except (OverflowError, ValueError, OSError):
        return ""  # of a dead letter that another program wrote


def tone(state: BatchState | JobState) -> str:
    """Returns the class for the colour of a state."""
    for states, name in ((_GOOD, "good"), (_BAD, "bad"), (_ODD, "odd"), (_ACTIVE, "active")):
        if state in states:
            return name
    return "quiet"


def words(state: str) -> str:
    """Returns the name of a state with spaces."""
    return plain(state).replace("_", " ")


def labels(status: BatchStatus) -> list[str]:
    """Returns the labels of a batch as `name=value`."""
    return [f"{name}={value}" for name, value in status.labels.items()]


def done(status: BatchStatus) -> str:
    """Returns the counts of a batch in one line, without zeros."""
    counts = ((name, getattr(status, name)) for name in ("succeeded", "failed", "expired", "cancelled"))
    return ", ".join(f"{count:,} {name}" for name, count in counts if count)


def bars(status: BatchStatus) -> list[tuple[str, float, float]]:
    """Returns the parts of a batch's progress bar: class, start and width, in percent of its requests."""
    total = max(1, status.total)
    counts = {
        "good": status.succeeded,
        "bad": status.failed,
        "odd": status.expired + status.cancelled,
        "active": max(0, status.ended - status.settled),
    }
    found, start = [], 0.0
    for name, count in counts.items():
        width = min(100.0 - start, 100.0 * count / total)
        if width > 0:
            found.append((name, round(start, 2), round(width, 2)))
        start += width
    return found


def share(count: float, most: float) -> float:
    """Returns how much of a limit is used, in percent, at most 100."""
    return round(min(100.0, 100.0 * count / most), 2) if most else 0.0


def usage(tokens: Usage) -> str:
    """Returns tokens in one line; empty where there are none."""
    parts = {
        "in": tokens.prompt_token_count,
        "of them cached": tokens.cached_content_token_count,
        "for tools": tokens.tool_use_prompt_token_count,
        "out": tokens.candidates_token_count,
        "thoughts": tokens.thoughts_token_count,
    }
    shown = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
    return f"{tokens.total_token_count:,}: {shown}" if shown else ""


def cost(status: BatchStatus) -> str:
    """Returns what a batch has cost in one line; empty before its first answer."""
    return cost_text(status.cost, status.paid_cost, status.unpriced)


def paid(status: BatchStatus) -> str:
    """Returns what was paid for a batch so far, and its limit if it has one; empty where neither is known."""
    if status.max_cost:
        return f"{dollars(status.paid_cost or 0)} of {dollars(status.max_cost)}"
    return dollars(status.paid_cost) if status.paid_cost else ""


def max_cost(status: BatchStatus) -> str:
    """Returns the most that a batch may cost; empty where there is no limit."""
    return dollars(status.max_cost) if status.max_cost else ""


def waiting(found: Waiting) -> str:
    """Returns what the requests of a batch wait for in one line."""
    place = f", place {found.position:,} in the line" if found.position else ""
    return f"Requests that wait: {found.requests:,}{place}: {reason(found.reason)}"


def wait(found: Waiting) -> str:
    """Returns the same without number and place, which a list of batches knows only of the newest jobs."""
    return f"It waits: {reason(found.reason)}"


def handler(on_result: str | None) -> str:
    """Returns the target of a batch."""
    if on_result is None:
        return "none: results are stored"
    return reason(on_result)


def job_number(job: JobStatus) -> str:
    """Returns the number of a job in its batch."""
    return job.id.rpartition("-")[2]


def job_requests(job: JobStatus) -> str:
    """Returns how many requests a job has, how many are done at the provider, and how many are of this batch."""
    done = f"{job.done_requests:,} of " if job.done_requests else ""
    own = f", {job.requests:,} of this batch" if job.others else ""
    return f"{done}{job.requests + job.others:,}{own}"


def job_counts(status: BatchStatus) -> str:
    """Returns how many jobs are in each state, the commonest first."""
    counts = sorted(status.job_counts.items(), key=lambda one: -one[1])
    return ", ".join(f"{count:,} {words(state)}" for state, count in counts)


def events(status: BatchStatus) -> list[tuple[float, str]]:
    """Returns the last events of a batch and of its jobs that are shown, newest first, each with its Unix time."""
    found = [(status.created_at, "The batch was submitted.")]
    if status.finished_at is not None:
        found.append((status.finished_at, f"The batch is {words(status.state)}."))
    for job in status.jobs:
        if job.created_at is not None:
            found.append((job.created_at, f"Job {job_number(job)} was created at the provider."))
        if job.ended_at is not None:
            found.append((job.ended_at, f"Job {job_number(job)} has ended: {words(job.state)}."))
    return sorted(found, reverse=True)[:_MOST_EVENTS]
