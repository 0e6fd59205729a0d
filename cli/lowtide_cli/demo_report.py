"""What the demos show of a finished batch, and how they check it."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lowtide import BatchStatus, Result, ResultStatus
from lowtide_cli.exits import Exit

_SHOWN = 10


def show_some(console: Console, found: list[Result]) -> None:
    """A few of the results, from all over the batch."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("key", no_wrap=True, overflow="ellipsis", max_width=22)
    table.add_column("status", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("text", no_wrap=True, overflow="ellipsis", max_width=max(20, console.width - 48))
    for result in found[:: max(1, len(found) // _SHOWN)][:_SHOWN]:
        tokens = f"{result.usage.total_token_count:,}" if result.usage else "-"
        text = result.text or (result.error.message if result.error else "")
        table.add_row(escape(result.key), result.status, tokens, escape(" ".join(text.split())))
    console.print()
    console.print(table)


def show_counts(console: Console, status: BatchStatus, seconds: float) -> None:
    """What the batch came to."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right", style="bold")
    for name, value in (
        ("requests", f"{status.total:,}"),
        ("succeeded", f"{status.succeeded:,}"),
        ("failed", f"{status.failed + status.expired + status.cancelled:,}"),
        ("provider jobs", f"{len(status.jobs):,}"),
        ("tokens", f"{status.usage.total_token_count:,}"),
        ("seconds", f"{seconds:.1f}"),
    ):
        table.add_row(name, value)
    console.print()
    console.print(table)
    console.print()


def verdict(console: Console, keys: list[str], found: list[Result]) -> Exit:
    """Every key exactly once, and every one with an answer."""
    counts = Counter(result.key for result in found)
    problems = {
        "without a result": [key for key in keys if not counts[key]],
        "with more than one result": [key for key, count in counts.items() if count > 1],
        "that nobody asked for": sorted(counts.keys() - set(keys)),
        "that did not succeed": [result.key for result in found if result.status is not ResultStatus.SUCCEEDED],
    }
    for what, which in problems.items():
        if which:
            some = ", ".join(which[:5]) + (" ..." if len(which) > 5 else "")
            console.print(f"[red]{len(which):,} keys {what}:[/] {escape(some)}")
    if any(problems.values()):
        return Exit.FAILURES
    console.print(f"[green]every one of the {len(keys):,} requests has its result, checked key by key")
    return Exit.OK
