"""`lowtide list`: one page of batches, newest first."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping

import typer
from rich.markup import escape
from rich.text import Text

from lowtide import BatchQueue, BatchState, BatchStatus, Settings
from lowtide.store import Store
from lowtide.text import counted
from lowtide_cli.batches import pairs
from lowtide_cli.terminal.layout import Column, Row, print_rows
from lowtide_cli.terminal.output import STATE_STYLE, age, labels_text, print_json, status_data, stdout, waiting_text

_MOST_CHARS = 160
"""Most characters of the reason that is shown with a batch. A page has many batches, often with the same reason."""


def list_batches(
    *,
    state: str | None,
    labels: list[str],
    bundle: str | None,
    page_size: int,
    page_token: str | None,
    as_json: bool,
) -> None:
    """Prints one page of batches."""
    if state is not None and state not in set(BatchState):
        raise typer.BadParameter(f"{state!r} is not one of {', '.join(BatchState)}", param_hint="--state")
    wanted = pairs(labels, "--label", "NAME=VALUE")
    queue = BatchQueue()
    try:
        page = queue.list(state=state, labels=wanted, bundle=bundle, page_size=page_size, page_token=page_token)
    except ValueError as error:
        name, _, problem = str(error).partition(": ")
        raise typer.BadParameter(problem, param_hint=f"--{name.replace('_', '-')}") from None
    if as_json:
        batches = [status_data(status) for status in page.batches]
        print_json({"batches": batches, "next_page_token": page.next_page_token, "unreadable": page.unreadable})
        return
    console = stdout()
    if page.unreadable:
        console.print(f"records that cannot be read: {escape(', '.join(page.unreadable))}", style="yellow")
    if page.batches:
        print_rows(console, *_rows(page.batches))
    else:
        nothing = _nothing(state, wanted, page.next_page_token)
        console.print(f"{nothing} in bundle {bundle}" if bundle else nothing, markup=False)
    everything = not (state or wanted or bundle or page_token)
    if everything and (singles := Store(Settings()).singles_waiting()):
        console.print(f"{counted(singles, 'single waits', 'singles wait')} to be gathered into batches", style="dim")
    if page.next_page_token:
        more = ["lowtide", "list", "--page-size", str(page_size), "--page-token", page.next_page_token]
        more += [] if state is None else ["--state", state]
        more += [] if bundle is None else ["--bundle", bundle]
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
        return _brief(status.problems[0], status, more=len(status.problems) - 1)
    if status.finished and status.undelivered:
        return f"results not delivered yet: {counted(status.undelivered, 'segment')}"
    return _brief(status.warnings[0], status) if status.warnings else ""


def _waits(status: BatchStatus) -> str:
    """The reason why a batch waits; empty where it does not. The sums of a budget are left to `lowtide status`."""
    waiting = status.waiting
    if waiting is None:
        return ""
    if waiting.budget is None:
        return _brief(f"waits: {waiting_text(status)}", status)
    reason, _, _ = waiting.reason.partition(": ")
    return f"waits: {counted(waiting.requests, 'request')}: {reason} (lowtide status {status.id})"


def _brief(text: str, status: BatchStatus, *, more: int = 0) -> str:
    """The beginning of a text, with the command that shows all of it, and of `more` texts."""
    brief = textwrap.shorten(text, _MOST_CHARS, placeholder=" ...")
    # A text without blanks is cut within a word.
    brief = brief if brief != "..." else f"{text[:_MOST_CHARS]} ..."
    rest = [f"and {more} more"] * bool(more) + [f"lowtide status {status.id}"] * bool(more or brief.endswith(" ..."))
    return f"{brief} ({': '.join(rest)})" if rest else brief


def _rows(batches: list[BatchStatus]) -> tuple[list[Column], list[Row]]:
    columns = [Column("batch"), Column("state"), Column("done", right=True), Column("age", right=True), Column("model")]
    failed = any(map(_lost, batches))
    labelled = any(status.labels for status in batches)
    if failed:
        columns.insert(3, Column("failed", right=True))
    if labelled:
        columns.append(Column("labels", optional=True))
    rows = []
    for status in batches:
        remark = _remark(status)
        state = Text(status.state, style=STATE_STYLE[status.state])
        cells: list[str | Text] = [
            status.id,
            Text.assemble(state, (" !", "yellow")) if remark else state,
            f"{status.total:,}"
            if status.finished and status.answered == status.total
            else f"{status.answered:,}/{status.total:,}",
            age(status.created_at),
            status.model,
        ]
        if failed:
            cells.insert(3, Text(f"{_lost(status):,}", style="red" if _lost(status) else ""))
        if labelled:
            cells.append(labels_text(status))
        rows.append(Row(cells, note=remark or _waits(status)))
    return columns, rows


def _lost(status: BatchStatus) -> int:
    return status.failed + status.expired
