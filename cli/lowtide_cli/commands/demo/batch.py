"""A batch of the demo: its producer, its progress and outcome on the terminal, and the check of its results."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lowtide import Batch, BatchQueue, BatchStatus, Result, ResultStatus, Settings, WaitTimeout
from lowtide.budgets import cost_text
from lowtide.text import counted
from lowtide_cli.commands.watch import show_progress
from lowtide_cli.local import Stack
from lowtide_cli.terminal import CommandError, Exit

MODEL = "gemini-3.5-flash"
_LONGEST_SECONDS = 60.0
_SHOWN = 5


def demo_queue(stack: Stack, **settings: Any) -> BatchQueue:
    """Returns a producer for the stack."""
    redis_url, spool_url = stack.exports["LOWTIDE_REDIS_URL"], stack.exports["LOWTIDE_SPOOL_URL"]
    return BatchQueue(Settings(redis_url=SecretStr(redis_url), spool_url=spool_url, **settings))


def show(console: Console, stack: Stack, batch: Batch, keys: list[str]) -> Exit:
    """Follows a batch until it is finished, shows the outcome and checks the results key by key."""
    started = time.monotonic()
    try:
        status = show_progress(batch, console, _LONGEST_SECONDS)
    except WaitTimeout as error:
        # The logs are deleted when the demo ends, so the error must quote them.
        logs = [f"  {worker.name} | {line}" for worker in stack.workers for line in worker.last_lines()]
        raise CommandError("\n".join([str(error), *logs])) from error
    seconds = time.monotonic() - started
    found = list(batch.results())
    _show_some(console, found)
    _show_counts(console, status, seconds)
    return _check(console, keys, found)


def _show_some(console: Console, found: list[Result]) -> None:
    """Shows a few results, spread over the whole batch."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("key", no_wrap=True, overflow="ellipsis", max_width=22)
    table.add_column("status", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column(
        "text, made up by the emulator",
        no_wrap=True,
        overflow="ellipsis",
        max_width=min(100, max(20, console.width - 48)),
    )
    for result in found[:: max(1, len(found) // _SHOWN)][:_SHOWN]:
        tokens = f"{result.usage.total_token_count:,}" if result.usage else "-"
        text = result.text or (result.error.message if result.error else "")
        table.add_row(escape(result.key), result.status, tokens, escape(" ".join(text.split())))
    console.print()
    console.print(table)


def _show_counts(console: Console, status: BatchStatus, seconds: float) -> None:
    """Shows the counts of the batch in one line."""
    failed = status.failed + status.expired + status.cancelled
    counts = [
        counted(status.total, "request"),
        f"{status.succeeded:,} succeeded",
        f"{failed:,} failed",
        counted(len(status.jobs), "provider job"),
        f"{status.usage.total_token_count:,} tokens",
        f"{seconds:.1f} s",
    ]
    console.print()
    console.print(", ".join(counts))
    for problem in (*status.problems, *status.warnings):
        console.print(problem, style="yellow", markup=False)
    if cost := cost_text(status.cost, status.paid_cost, status.unpriced):
        console.print(f"{cost} by the batch prices of {status.model}; the tokens are made up, and nothing is paid")


def _check(console: Console, keys: list[str], found: list[Result]) -> Exit:
    """Checks that every key has exactly one result, and that it succeeded."""
    counts = Counter(result.key for result in found)
    problems = {
        "without a result": [key for key in keys if not counts[key]],
        "with more than one result": [key for key, count in counts.items() if count > 1],
        "that were not requested": sorted(counts.keys() - set(keys)),
        "that did not succeed": [result.key for result in found if result.status is not ResultStatus.SUCCEEDED],
    }
    for what, which in problems.items():
        if which:
            some = ", ".join(which[:5]) + (" ..." if len(which) > 5 else "")
            console.print(f"[red]{counted(len(which), 'key')} {what}:[/] {escape(some)}")
    if any(problems.values()):
        return Exit.FAILURES
    console.print(f"[green]every one of the {len(keys):,} requests has its result, checked key by key")
    return Exit.OK
