"""`lowtide estimate`: shows what a file of requests would be as a batch, and what it would cost."""

from __future__ import annotations

import sys
from decimal import Decimal

from lowtide.estimates import Estimate, estimate
from lowtide.text import on_one_line
from lowtide_cli.terminal import Exit
from lowtide_cli.terminal.layout import print_facts
from lowtide_cli.terminal.output import print_json, stdout

_STDIN = "-"
_NANO = 10**9


def show_estimate(
    file: str, *, model: str, mode: str | None, provider: str | None, kind: str, key_field: str | None, as_json: bool
) -> Exit:
    """Prints the estimate; returns `ERROR` where `submit` would refuse a request."""
    requests = sys.stdin.buffer if file == _STDIN else file
    found = estimate(requests, model=model, mode=mode, provider=provider, kind=kind, key_field=key_field)
    if as_json:
        print_json(found)
    else:
        print_facts(stdout(), _facts(found, model))
    return Exit.ERROR if found.refused else Exit.OK


def _facts(found: Estimate, model: str) -> dict[str, str]:
    """Returns the facts of an estimate, by name. Empty ones are not shown."""
    output = "unknown: not every request has maxOutputTokens"
    return {
        "model": model,
        "requests": f"{found.requests:,}",
        "bytes": f"{found.bytes:,}",
        "jobs": f"{found.jobs:,}",
        "input tokens": f"about {found.input_tokens:,}",
        "output tokens": output if found.output_tokens is None else f"at most {found.output_tokens:,}",
        "quota": f"fits the enqueued tokens of {found.quota_tier} at once" if found.quota_tier else "",
        "cost": _cost(found),
        "refused": f"{found.refused:,}" if found.refused else "",
        "problem": "\n".join(map(on_one_line, found.problems)),
    }


def _cost(found: Estimate) -> str:
    if found.lowest_cost is None:
        return "unknown: the price table has no row for this model"
    lowest = f"{_dollars(found.lowest_cost)} of input"
    return f"{lowest}, output unknown" if found.highest_cost is None else f"{lowest} to {_dollars(found.highest_cost)}"


def _dollars(nano: int) -> str:
    dollars = Decimal(nano) / _NANO
    return f"${dollars:,.2f}" if dollars >= 1 else f"${dollars:.6f}"
