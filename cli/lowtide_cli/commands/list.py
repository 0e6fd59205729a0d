"""`lowtide list`: one page of batches, newest first."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping

import typer
from rich.markup import escape
from rich.table import Table

from lowtide import BatchQueue, BatchState, BatchStatus
from lowtide_cli.batches import pairs
from lowtide_cli.terminal.output import duration, labels_text, print_json, state_text, status_data, stdout

_WIDE = 100
_MARK = " [yellow]![/]"


def list_batches(
    *, state: str | None, labels: list[str], page_size: int, page_token: str | None, as_json: bool
) -> None:
    """Prints one page of batches."""
    if state is not None and state not in set(BatchState):
        raise typer.BadParameter(f"{state!r} is not one of {', '.join(BatchState)}", param_hint="--state")
    wanted = pairs(labels, "--label", "NAME=VALUE")
    queue = BatchQueue()
    try:
        page = queue.list(state=state, labels=wanted, page_size=page_size, page_token=page_token)
    except ValueError:
        raise typer.BadParameter("not a token that `lowtide list` printed", param_hint="--page-token") from None
    if as_json:
        batches = [status_data(status) for status in page.batches]
        print_json({"batches": batches, "next_page_token": page.next_page_token, "unreadable": page.unreadable})
        return
    console = stdout()
    if page.unreadable:
        console.print(f"records that cannot be read: {escape(', '.join(page.unreadable))}", style="yellow")
    if page.batches:
        console.print(_table(page.batches, console.width))
    else:
        console.print(_nothing(state, wanted, page.next_page_token))
    for status in page.batches:
        if remark := _remark(status):
            console.print(f"! {status.id}: {remark}", style="yellow", markup=False, soft_wrap=True)
    if page.next_page_token:
        more = ["lowtide", "list", "--page-size", str(page_size), "--page-token", page.next_page_token]
        more += [] if state is None else ["--state", state]
        more += [word for label in labels for word in ("--label", label)]
        console.print(f"more: {shlex.join(more)}", style="dim", markup=False, soft_wrap=True)


def _nothing(state: str | None, labels: Mapping[str, str], token: str | None) -> str:
    if state is None and not labels:
        return "no batches"
    known = f"is {state}" if not labels else "has these labels" if state is None else f"is {state} with these labels"
    return f"no batch {known}" if token is None else f"none of the batches so far {known}"


def _remark(status: BatchStatus) -> str:
    """The reason why a batch needs attention; empty where it needs none."""
    if status.problems:
        more = len(status.problems) - 1
        return status.problems[0] + (f" (and {more} more: lowtide status {status.id})" if more else "")
    if status.finished and status.undelivered:
        return f"results not delivered yet: {status.undelivered:,} segments"
    return status.warnings[0] if status.warnings else ""


def _table(batches: list[BatchStatus], width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("batch", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("done", "failed", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    # The model is wrapped first, because a divided id cannot be copied.
    table.add_column("model", overflow="fold", max_width=max(8, width - 68))
    wide = width >= _WIDE and any(status.labels for status in batches)
    if wide:
        table.add_column("labels", overflow="fold", max_width=width - 84)
    for status in batches:
        lost = status.failed + status.expired
        row = [
            status.id,
            state_text(status.state) + (_MARK if _remark(status) else ""),
            f"{status.total:,}" if status.finished else f"{status.answered:,}/{status.total:,}",
            f"[red]{lost:,}[/]" if lost else "0",
            duration(time.time() - status.created_at),
            escape(status.model),
        ]
        table.add_row(*row, *([escape(labels_text(status))] if wide else []))
    return table
