"""One status of a batch on a terminal: a bar, and one measure a line."""

from __future__ import annotations

import time

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lowtide import BatchState, BatchStatus
from lowtide.budgets import cost_text
from lowtide.text import duration
from lowtide_cli.terminal.output import STATE_STYLE, answered_text, outcome, tokens_text, waiting_text


def picture(status: BatchStatus, left: float | None = None, away: str = "") -> Group:
    """Returns the picture of a status, at its end without problems and warnings, which follow as text.

    - `left`: the remaining time in seconds; None: there is no estimate.
    - `away`: why there is no later status. It replaces the problems, which may be over.
    """
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True, justify="right")
    style = "green" if _clean(status) else "yellow"
    bar.add_row(
        Text(status.state, style=STATE_STYLE[status.state]),
        ProgressBar(total=status.total, completed=status.ended, finished_style=style),
        Text(answered_text(status)),
    )
    shown = {**measures(status), "time": _time(status, left)}
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in shown.items():
        if value:
            table.add_row(Text(name, style="dim"), Text(value, style="dim"))
    doubts = (away,) if away else () if status.finished else (*status.problems, *status.warnings)
    return Group(bar, table, *(Text(text, style="yellow") for text in doubts))


def measures(status: BatchStatus) -> dict[str, str]:
    """Returns the progress by what is counted: each is a line of its own, so that none is read as another."""
    return {
        "results": outcome(status),
        "jobs": _jobs(status),
        "waiting": waiting_text(status),
        "tokens": tokens_text(status.usage),
        "cost": cost_text(status.cost, status.paid_cost, status.unpriced),
    }


def _clean(status: BatchStatus) -> bool:
    return status.succeeded == status.settled


def _jobs(status: BatchStatus) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in status.job_counts.items()) or "none yet"


def _time(status: BatchStatus, left: float | None) -> str:
    so_far = f"{duration((status.finished_at or time.time()) - status.created_at)} elapsed"
    if status.finished or status.state is BatchState.CANCELLING:
        return so_far
    if status.ended == status.total:
        return f"{so_far}, all answered, results are being stored"
    return so_far if left is None else f"{so_far}, about {duration(left)} left at the present pace"
