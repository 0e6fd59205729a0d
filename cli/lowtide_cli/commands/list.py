"""`lowtide list`: one page of batches, newest first."""

from __future__ import annotations

import re
import time

import typer
from rich.markup import escape
from rich.table import Table

from lowtide import BatchQueue, BatchState, BatchStatus
from lowtide_cli.terminal.output import duration, labels_text, print_json, state_text, status_data, stdout

_TOKEN = re.compile(r"\d+(\.\d+)?(e\+?\d+)?:[a-z0-9-]+", re.ASCII)
_WIDE = 100
_MARK = " [yellow]![/]"


def list_batches(*, state: str | None, page_size: int, page_token: str | None, as_json: bool) -> None:
    """Prints one page of batches."""
    if state is not None and state not in set(BatchState):
        raise typer.BadParameter(f"{state!r} is not one of {', '.join(BatchState)}", param_hint="--state")
    if page_token is not None and not _TOKEN.fullmatch(page_token):
        raise typer.BadParameter("not a token that `lowtide list` printed", param_hint="--page-token")
    page = BatchQueue().list(state=state, page_size=page_size, page_token=page_token)
    if as_json:
        batches = [status_data(status) for status in page.batches]
        print_json({"batches": batches, "next_page_token": page.next_page_token, "unreadable": page.unreadable})
        return
    console = stdout()
    if page.unreadable:
        console.print(f"records that cannot be read: {escape(', '.join(page.unreadable))}", style="yellow")
    if not page.batches:
        console.print("no batches" if state is None else f"no batch is {state}")
        return
    console.print(_table(page.batches, console.width))
    if any(status.problems for status in page.batches):
        console.print("! no progress, or undelivered results: `lowtide status BATCH` shows the reason", style="yellow")
    if page.next_page_token:
        more = f"lowtide list --page-size {page_size} --page-token {page.next_page_token}"
        console.print(f"more: {more}{f' --state {state}' if state else ''}", style="dim", soft_wrap=True)


def _table(batches: list[BatchStatus], width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("batch", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("requests", "failed", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    # The model is shortened first, because an incomplete id is useless.
    table.add_column("model", no_wrap=True, overflow="ellipsis", max_width=max(8, width - 68))
    wide = width >= _WIDE and any(status.labels for status in batches)
    if wide:
        table.add_column("labels", no_wrap=True, overflow="ellipsis", max_width=width - 84)
    for status in batches:
        lost = status.failed + status.expired
        row = [
            status.id,
            state_text(status.state) + (_MARK if status.problems else ""),
            f"{status.total:,}" if status.finished else f"{status.settled:,}/{status.total:,}",
            f"[red]{lost:,}[/]" if lost else "0",
            duration(time.time() - status.created_at),
            escape(status.model),
        ]
        table.add_row(*row, *([escape(labels_text(status))] if wide else []))
    return table
