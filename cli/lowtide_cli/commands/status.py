"""`lowtide status`: the state of one batch and of its jobs."""

from __future__ import annotations

from rich.console import Console

from lowtide import BatchStatus, JobStatus, Kind
from lowtide.budgets import cost_text, dollars
from lowtide.text import counted, duration, on_one_line
from lowtide_cli.batches import find
from lowtide_cli.terminal import Exit, exit_of
from lowtide_cli.terminal.layout import Column, Row, print_facts, print_rows
from lowtide_cli.terminal.output import (
    ago,
    counts_text,
    labels_text,
    local_time,
    outcome,
    print_json,
    state_text,
    status_data,
    stdout,
    tokens_text,
    waiting_text,
)

_SHOWN_JOBS = 20
_SHOWN_SOURCES = 5
_COLUMNS = [
    Column("job", right=True),
    Column("state"),
    Column("requests", right=True),
    Column("attempt", right=True),
    Column("polls", right=True, optional=True),
    Column("provider job"),
]


def show_status(batch_id: str, *, as_json: bool) -> Exit:
    """Prints the state of a batch."""
    batch = find(batch_id)
    if as_json:
        status = batch.status()
        print_json(status_data(status))
    else:
        status = batch.status(max_jobs=_SHOWN_JOBS)
        _show(status)
    return exit_of(status)


def _show(status: BatchStatus) -> None:
    console = stdout()
    console.print(f"[bold]{status.id}[/]  {state_text(status.state)}")
    print_facts(console, _facts(status))
    if status.jobs:
        _show_jobs(console, status.jobs)
    if left_out := _left_out(status):
        console.print(left_out, style="dim")


def _facts(status: BatchStatus) -> dict[str, str]:
    """Returns the facts about a batch, by name. Empty ones are not shown."""
    return {
        "model": status.model,
        "provider": str(status.provider),
        "requests": outcome(status),
        "answered": _answered(status),
        "waiting": waiting_text(status),
        "reasons": counts_text(status.reasons),
        "models": counts_text(status.models) if status.warnings else "",
        "estimated tokens": f"{status.estimated_tokens:,} of input" if status.estimated_tokens else "",
        "tokens": tokens_text(status.usage),
        "discarded tokens": tokens_text(status.discarded_usage),
        "cost": cost_text(status.cost, status.paid_cost, status.unpriced),
        "max cost": dollars(status.max_cost) if status.max_cost else "",
        "shares jobs in": _bundle(status),
        "submitted": f"{local_time(status.created_at)}, {ago(status.created_at)}",
        "deadline": local_time(status.deadline_at) if status.deadline_at else "",
        "finished": _finished(status),
        "kind": "" if status.kind is Kind.GENERATION else str(status.kind),
        "sources": _sources(status),
        "destination": status.destination or "",
        "labels": labels_text(status),
        "handler": status.on_result or "",
        "on finished": status.on_finished or "",
        "on progress": status.on_progress or "",
        "idempotency key": status.idempotency_key or "",
        "error": f"{status.error.reason}: {status.error.message}" if status.error else "",
        "problem": "\n".join(status.problems),
        "warning": "\n".join(on_one_line(warning) for warning in status.warnings),
        "undelivered segments": _count(status.undelivered),
        "parked segments": _count(status.parked),
        "duplicate rows": _count(status.duplicates),
        "quarantined rows": _count(status.quarantined),
    }


def _bundle(status: BatchStatus) -> str:
    if not status.bundle:
        return ""
    others = status.bundled - 1
    return f"{status.bundle}, with {counted(others, 'other batch', 'other batches') if others else 'no other batch'}"


def _finished(status: BatchStatus) -> str:
    if status.finished_at is None:
        return ""
    return f"{local_time(status.finished_at)}, after {duration(status.finished_at - status.created_at)}"


def _answered(status: BatchStatus) -> str:
    """Returns the provider's progress, where it is ahead of the stored results."""
    if status.ended <= status.settled:
        return ""
    return f"{status.answered:,} of {status.total:,} by the provider"


def _sources(status: BatchStatus) -> str:
    lines = status.sources[:_SHOWN_SOURCES]
    if left := len(status.sources) - len(lines):
        lines.append(f"and {left:,} more: --json shows all")
    return "\n".join(lines)


def _count(number: int) -> str:
    return str(number) if number else ""


def _show_jobs(console: Console, jobs: list[JobStatus]) -> None:
    console.print()
    print_rows(console, _COLUMNS, [_row(job) for job in jobs])


def _left_out(status: BatchStatus) -> str:
    """Returns the number of jobs that are not shown, and all by state; empty where all are shown."""
    left = sum(status.job_counts.values()) - len(status.jobs)
    counts = counts_text({str(state): count for state, count in status.job_counts.items()})
    return f"and {counted(left, 'more job')}: --json shows all. By state: {counts}" if left else ""


def _row(job: JobStatus) -> Row:
    number = job.id.rpartition("-")[2]
    attempt = f"{job.attempt}, continued: {job.continuations}" if job.continuations else str(job.attempt)
    requests = f"{job.requests:,} of {job.requests + job.others:,}" if job.others else f"{job.requests:,}"
    counts = (requests, attempt, str(job.polls))
    error = f"{job.error.reason}: {job.error.message}" if job.error else ""
    return Row([number, str(job.state), *counts, job.name or "-"], note=error)
