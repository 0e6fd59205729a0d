"""`lowtide list` and `lowtide status`: what the store knows."""

from __future__ import annotations

import re
import time

import typer
from rich.markup import escape
from rich.table import Table

from lowtide import BatchQueue, BatchState, BatchStatus, JobStatus, Kind
from lowtide.text import on_one_line
from lowtide_cli.batches import find
from lowtide_cli.exits import Exit, exit_of
from lowtide_cli.output import (
    ago,
    duration,
    local_time,
    outcome,
    print_json,
    state_text,
    status_data,
    stdout,
)

_TOKEN = re.compile(r"\d+(\.\d+)?(e\+?\d+)?:[a-z0-9-]+", re.ASCII)
_SHOWN_JOBS = 20
_SHOWN_SOURCES = 5
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
        print_json(
            {"batches": batches, "next_page_token": page.next_page_token, "unreadable": page.unreadable},
        )
        return
    console = stdout()
    if page.unreadable:
        console.print(f"records that cannot be read: {escape(', '.join(page.unreadable))}", style="yellow")
    if not page.batches:
        console.print("no batches" if state is None else f"no batch is {state}")
        return
    console.print(_batches(page.batches, console.width))
    if any(status.problems for status in page.batches):
        console.print("! does not move, or is not delivered: `lowtide status BATCH` says why", style="yellow")
    if page.next_page_token:
        more = f"lowtide list --page-size {page_size} --page-token {page.next_page_token}"
        console.print(f"more: {more}{f' --state {state}' if state else ''}", style="dim", soft_wrap=True)


def _batches(batches: list[BatchStatus], width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("batch", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("requests", "failed", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    # The model gives way first: an id that is cut short is of no use.
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
        table.add_row(*row, *([escape(_labels(status))] if wide else []))
    return table


def show_status(batch_id: str, *, as_json: bool) -> Exit:
    """Prints where a batch stands."""
    status = find(batch_id).status()
    if as_json:
        print_json(status_data(status))
    else:
        _show(status)
    return exit_of(status)


def _show(status: BatchStatus) -> None:
    console = stdout()
    console.print(f"[bold]{status.id}[/]  {state_text(status.state)}")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("model", escape(status.model))
    facts.add_row("provider", str(status.provider))
    facts.add_row("requests", outcome(status))
    facts.add_row("tokens", f"{status.usage.total_token_count:,}: {status.usage.prompt_token_count:,} in, "
                  f"{status.usage.candidates_token_count + status.usage.thoughts_token_count:,} out")  # fmt: skip
    facts.add_row("submitted", f"{local_time(status.created_at)}, {ago(status.created_at)}")
    if status.finished_at is not None:
        took = duration(status.finished_at - status.created_at)
        facts.add_row("finished", f"{local_time(status.finished_at)}, after {took}")
    optional = (
        ("kind", status.kind if status.kind is not Kind.GENERATION else None),
        ("sources", _sources(status)),
        ("destination", status.destination),
        ("labels", _labels(status)),
        ("handler", status.on_result),
        ("idempotency key", status.idempotency_key),
        ("error", f"{status.error.reason}: {status.error.message}" if status.error else None),
        ("problem", "\n".join(status.problems)),
        ("undelivered segments", status.undelivered),
        ("parked segments", status.parked),
        ("duplicate rows", status.duplicates),
        ("quarantined rows", status.quarantined),
    )
    for name, value in optional:
        if value:
            facts.add_row(name, escape(str(value)))
    console.print(facts)
    if status.jobs:
        console.print()
        console.print(_jobs(status.jobs[-_SHOWN_JOBS:], console.width))
        for job in status.jobs[-_SHOWN_JOBS:]:
            if job.error:
                remark = f"job {job.id.rpartition('-')[2]}: {job.error.reason}: {job.error.message}"
                console.print(on_one_line(remark), style="red", markup=False, soft_wrap=True)
        if len(status.jobs) > _SHOWN_JOBS:
            console.print(f"and {len(status.jobs) - _SHOWN_JOBS:,} earlier jobs: --json shows all", style="dim")


def _jobs(jobs: list[JobStatus], width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("job", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("requests", "attempt", "polls"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("provider job", no_wrap=True, overflow="ellipsis", max_width=max(16, width - 54))
    for job in jobs:
        table.add_row(
            job.id.rpartition("-")[2], job.state, f"{job.requests:,}", str(job.attempt), str(job.polls),
            escape(job.name or "-"),
        )  # fmt: skip
    return table


def _sources(status: BatchStatus) -> str:
    lines = status.sources[:_SHOWN_SOURCES]
    if left := len(status.sources) - len(lines):
        lines.append(f"and {left:,} more: --json shows all")
    return "\n".join(lines)


def _labels(status: BatchStatus) -> str:
    return ", ".join(f"{name}={value}" for name, value in status.labels.items())
