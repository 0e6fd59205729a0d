"""`lowtide estimate`: shows what a file of requests would be as a batch, and what it would cost."""

from __future__ import annotations

from lowtide import BatchQueue, Estimate
from lowtide.budgets import dollars
from lowtide.text import on_one_line
from lowtide_cli.terminal import Exit
from lowtide_cli.terminal.layout import print_facts
from lowtide_cli.terminal.output import print_json, stdout
from lowtide_cli.terminal.streams import standard_input

_STDIN = "-"


def show_estimate(
    file: str, *, model: str, mode: str | None, provider: str | None, kind: str, key_field: str | None, as_json: bool
) -> Exit:
    """Prints the estimate; returns `ERROR` where `submit` would refuse a request."""
    requests = standard_input("requests, one a line,") if file == _STDIN else file
    queue = BatchQueue()
    found = queue.estimate(requests, model=model, mode=mode, provider=provider, kind=kind, key_field=key_field)
    return print_estimate(found, model, as_json=as_json)


def print_estimate(found: Estimate, model: str, *, as_json: bool) -> Exit:
    """Prints an estimate; returns `ERROR` where `submit` would refuse a request."""
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
        "token ratio": _ratio(found),
        "quota": _quota(found),
        "cost": _cost(found),
        "held": ""
        if found.held_cost is None
        else f"{dollars(found.held_cost)}: set aside from max_cost and budgets until the answers are paid",
        "max cost": _max_cost(found),
        "refused": f"{found.refused:,}" if found.refused else "",
        "problem": "\n".join(on_one_line(one).replace("key_field=", "--key-field ") for one in found.problems),
    }


def _ratio(found: Estimate) -> str:
    if found.token_ratio is None:
        return "unknown: Redis has no answers of this model, or does not answer"
    return f"{found.token_ratio:.2f} reported tokens for each estimated one; the input tokens are corrected by it"


def _quota(found: Estimate) -> str:
    known = found.token_limit
    limit = f"{known:,} input tokens of the model may be under way" if known else ""
    if known and found.input_tokens > known:
        limit += ", so jobs wait for each other"
    tier = f"fits the enqueued tokens of {found.quota_tier} at once" if found.quota_tier else ""
    return "; ".join(filter(None, (limit, tier)))


def _max_cost(found: Estimate) -> str:
    if found.max_cost is None or found.held_cost is None:
        return ""
    limit = dollars(found.max_cost)
    if found.held_cost <= found.max_cost:
        return f"{limit}: all requests fit"
    return f"{limit}: less than is held, so requests wait for others to cost less than their estimate"


def _cost(found: Estimate) -> str:
    if found.lowest_cost is None:
        return "unknown: the price table has no row for this model"
    lowest = f"{dollars(found.lowest_cost)} of input"
    return f"{lowest}, output unknown" if found.highest_cost is None else f"{lowest} to {dollars(found.highest_cost)}"
