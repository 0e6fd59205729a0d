"""The course of `lowtide watch`: it reads the status of a batch until it is finished, and shows each change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from rich.console import Console, Group
from rich.live import Live

from lowtide import Batch, BatchStatus, StoreUnavailable, WaitTimeout
from lowtide.text import duration, on_one_line
from lowtide_cli.batches import find
from lowtide_cli.commands.watch.pace import Pace
from lowtide_cli.commands.watch.picture import measures, picture
from lowtide_cli.terminal import Exit, exit_of
from lowtide_cli.terminal.output import (
    answered_text,
    outcome,
    print_json,
    status_data,
    stderr,
    stdout,
)

_SHORTEST_PAUSE_SECONDS = 0.2
"""Shortest time between two reads of the status, however often the batch changes."""
_REFRESH_SECONDS = 2.0
"""Longest time between two reads: Redis does not notify of what happens to a job, such as its progress."""
_MOST_JOBS = 50
"""Jobs that are read, of which only the problems are shown. A watch that prints JSON reads all of them."""
_MAX_POLLING_SHARE = 0.05
"""The largest share of the time spent on reading the status. Reading thousands of jobs takes long."""
_REDIS_TIMEOUT_SECONDS = 60.0
"""The longest time that Redis may be unreachable. A watch may last for days, so a restart must not end it."""


def watch(batch_id: str, *, as_json: bool) -> Exit:
    """Shows the progress of a batch until it is finished."""
    batch = find(batch_id)
    status = _follow_json(batch) if as_json else follow(batch)
    return Exit.INTERRUPTED if status is None else exit_of(status)


def follow(batch: Batch, *, on_stderr: bool = False) -> BatchStatus | None:
    """Shows the progress until the batch is finished, then the outcome.

    Returns the final status, or None after Ctrl-C.
    """
    console = stderr() if on_stderr else stdout()
    try:
        status, said = _progress(batch, console, None)
    except KeyboardInterrupt:
        _say_that_it_goes_on(batch)
        return None
    took = duration((status.finished_at or time.time()) - status.created_at)
    console.print(f"{batch.id} {status.state} after {took}: {outcome(status)}", soft_wrap=True)
    for problem in (*status.problems, *status.warnings):
        if problem not in said:
            console.print(problem, style="yellow", markup=False, soft_wrap=True)
    return status


def show_progress(batch: Batch, console: Console, timeout: float | None = None) -> BatchStatus:
    """Shows the progress until the batch is finished, and returns the final status, of which it shows no problem.

    Raises `WaitTimeout` after `timeout` seconds. None: never.
    """
    return _progress(batch, console, timeout)[0]


def _progress(batch: Batch, console: Console, timeout: float | None) -> tuple[BatchStatus, set[str]]:
    """Shows the progress, and returns the final status with the lines that are still true of those printed so far."""
    return (_live if console.is_terminal else _lines)(batch, console, timeout)


def _follow_json(batch: Batch) -> BatchStatus | None:
    last = None

    def away(problem: str) -> None:
        if problem:
            stderr().print(problem, soft_wrap=True, markup=False)

    try:
        for status in _statuses(batch, away, max_jobs=None):
            last = status
            print_json(status_data(status), indent=0)
    except KeyboardInterrupt:
        _say_that_it_goes_on(batch)
        return None
    return last


def _say_that_it_goes_on(batch: Batch) -> None:
    stderr().print(
        f"\nno longer watching; this stops nothing else. Watch the batch again: lowtide watch {batch.id}",
        soft_wrap=True,
    )


def _lines(batch: Batch, console: Console, timeout: float | None) -> tuple[BatchStatus, set[str]]:
    said: set[str] = set()

    def away(problem: str) -> None:
        if problem:
            console.print(problem, soft_wrap=True, markup=False)

    for status in _statuses(batch, away, timeout):
        progress = {"requests": answered_text(status), **measures(status)}
        counted = (f"{name}: {value}" for name, value in progress.items() if value)
        lines = [str(status.state), *counted, *status.problems, *status.warnings]
        if status.finished:
            break
        for line in (line for line in lines if line not in said):
            console.print(line, soft_wrap=True, markup=False)
        said = set(lines)
    return status, said


def _live(batch: Batch, console: Console, timeout: float | None) -> tuple[BatchStatus, set[str]]:
    status, pace, away_because = batch.status(max_jobs=_MOST_JOBS), Pace(), ""

    def now() -> Group:
        return picture(status, pace.left(status.total, time.monotonic()), away_because)

    def away(problem: str) -> None:
        nonlocal away_because
        away_because = problem

    with Live(get_renderable=now, console=console, refresh_per_second=4):
        for status in _statuses(batch, away, timeout):
            pace.note(status.ended, time.monotonic())
    return status, set()


def _statuses(
    batch: Batch, away: Callable[[str], None], timeout: float | None = None, *, max_jobs: int | None = _MOST_JOBS
) -> Iterator[BatchStatus]:
    """Yields the status now and after every change, until the batch is finished.

    - `away`: is called with the problem when Redis stops to answer, and with "" when it answers again.
    """
    last: BatchStatus | None = None
    is_away = False
    started = seen = time.monotonic()
    due = started
    with batch.notifications() as notified:
        while last is None or not last.finished:
            try:
                polled = time.monotonic()
                if last is not None and polled < due and not batch.summary().finished:
                    status = last
                else:
                    status = batch.status(max_jobs=max_jobs)
                    took = time.monotonic() - polled
                    due = polled + took / _MAX_POLLING_SHARE
            except StoreUnavailable as error:
                if last is None or time.monotonic() - seen > _REDIS_TIMEOUT_SECONDS:
                    raise
                if not is_away:
                    is_away = True
                    away(f"trying again: {on_one_line(str(error))}")
            else:
                seen = time.monotonic()
                if is_away:
                    is_away = False
                    away("")
                if last is None or _essence(status) != _essence(last):
                    yield status
                last = status
            if not last.finished:
                if timeout is not None and time.monotonic() - started > timeout:
                    raise WaitTimeout(f"batch {batch.id} is not finished after {timeout:g} s: {outcome(last)}")
                time.sleep(_SHORTEST_PAUSE_SECONDS)
                notified.wait(_REFRESH_SECONDS)


def _essence(status: BatchStatus) -> object:
    why = status.waiting.why if status.waiting else None
    return status.state, status.settled, status.answered, status.job_counts, why, status.problems, status.warnings
