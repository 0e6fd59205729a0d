"""`lowtide watch`: the progress of a batch, live on a terminal, else a line per change."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lowtide import Batch, BatchState, BatchStatus, StoreUnavailable, WaitTimeout
from lowtide_cli.batches import find
from lowtide_cli.terminal import Exit, exit_of
from lowtide_cli.terminal.output import (
    STATE_STYLE,
    duration,
    outcome,
    print_json,
    status_data,
    stderr,
    stdout,
    tokens_text,
)

_POLL_SECONDS = 0.5
_MIN_SHARE_FOR_ETA = 0.05
"""The share of the requests that must be done before the remaining time is estimated."""
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
        status = show_progress(batch, console)
    except KeyboardInterrupt:
        _say_that_it_goes_on(batch)
        return None
    took = duration((status.finished_at or time.time()) - status.created_at)
    console.print(f"{batch.id} {status.state} after {took}: {outcome(status)}", soft_wrap=True)
    for problem in (*status.problems, *status.warnings):
        console.print(problem, style="yellow", markup=False, soft_wrap=True)
    return status


def show_progress(batch: Batch, console: Console, timeout: float | None = None) -> BatchStatus:
    """Shows the progress until the batch is finished, and returns the final status.

    Raises `WaitTimeout` after `timeout` seconds. None: never.
    """
    return (_live if console.is_terminal else _lines)(batch, console, timeout)


def _follow_json(batch: Batch) -> BatchStatus | None:
    last = None
    try:
        for status in _statuses(batch):
            last = status
            print_json(status_data(status), indent=0)
    except KeyboardInterrupt:
        _say_that_it_goes_on(batch)
        return None
    return last


def _say_that_it_goes_on(batch: Batch) -> None:
    stderr().print(
        f"\nno longer watching; the batch continues. Watch it again: lowtide watch {batch.id}", soft_wrap=True
    )


def _lines(batch: Batch, console: Console, timeout: float | None) -> BatchStatus:
    said: set[str] = set()
    for status in _statuses(batch, timeout):
        progress = {"requests": f"{status.answered:,} of {status.total:,} answered", **_measures(status)}
        measures = (f"{name}: {value}" for name, value in progress.items() if value)
        lines = [str(status.state), *measures, *status.problems, *status.warnings]
        if not status.finished:
            for line in (line for line in lines if line not in said):
                console.print(line, soft_wrap=True, markup=False)
        said = set(lines)
    return status


def _live(batch: Batch, console: Console, timeout: float | None) -> BatchStatus:
    status = batch.status()
    with Live(get_renderable=lambda: _picture(status), console=console, refresh_per_second=4):
        for status in _statuses(batch, timeout):  # noqa: B007 - the picture is drawn from it
            pass
    return status


def _statuses(batch: Batch, timeout: float | None = None) -> Iterator[BatchStatus]:
    """Yields the status now and after every change, until the batch is finished."""
    last: BatchStatus | None = None
    started = seen = time.monotonic()
    due = started
    while last is None or not last.finished:
        try:
            polled = time.monotonic()
            if last is not None and polled < due and not batch.summary().finished:
                status = last
            else:
                status = batch.status()
                took = time.monotonic() - polled
                due = polled + took / _MAX_POLLING_SHARE
        except StoreUnavailable:
            if last is None or time.monotonic() - seen > _REDIS_TIMEOUT_SECONDS:
                raise
        else:
            seen = time.monotonic()
            if last is None or _essence(status) != _essence(last):
                yield status
            last = status
        if not last.finished:
            if timeout is not None and time.monotonic() - started > timeout:
                raise WaitTimeout(f"batch {batch.id} is not finished after {timeout:g} s: {outcome(last)}")
            time.sleep(_POLL_SECONDS)


def _essence(status: BatchStatus) -> object:
    jobs = [job.state for job in status.jobs]
    return status.state, status.settled, status.answered, jobs, status.problems, status.warnings


def _picture(status: BatchStatus) -> Group:
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True, justify="right")
    style = "green" if _clean(status) else "yellow"
    bar.add_row(
        Text(status.state, style=STATE_STYLE[status.state]),
        ProgressBar(total=status.total, completed=status.answered, finished_style=style),
        Text(f"{status.answered:,}/{status.total:,} answered"),
    )
    now = status.finished_at or time.time()
    measures = {**_measures(status), "time": _time(status, now - status.created_at)}
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in measures.items():
        if value:
            table.add_row(Text(name, style="dim"), Text(value, style="dim"))
    return Group(bar, table, *(Text(text, style="yellow") for text in (*status.problems, *status.warnings)))


def _measures(status: BatchStatus) -> dict[str, str]:
    """Returns the progress by what is counted: each is a line of its own, so that none is read as another."""
    return {"results": outcome(status), "jobs": _jobs(status), "tokens": tokens_text(status.usage)}


def _clean(status: BatchStatus) -> bool:
    return status.succeeded == status.settled


def _jobs(status: BatchStatus) -> str:
    counts = Counter(str(job.state) for job in status.jobs)
    return ", ".join(f"{count:,} {state}" for state, count in counts.items()) or "none yet"


def _time(status: BatchStatus, elapsed: float) -> str:
    """Returns the time so far, and the remaining time at the pace so far.

    That is a guess: the counts of a batch with few jobs jump.
    """
    so_far = f"{duration(elapsed)} elapsed"
    done = status.answered
    if status.finished or status.state is BatchState.CANCELLING or done < status.total * _MIN_SHARE_FOR_ETA:
        return so_far
    if done == status.total:
        return f"{so_far}, all answered, results are being stored"
    return f"{so_far}, ~{duration(elapsed / done * (status.total - done))} left"
