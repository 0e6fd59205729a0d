"""What is printed where, and how: tables for people, JSON for programs, numbers with their commas."""

from __future__ import annotations

import sys
import time
from typing import Any

import msgspec
from rich.console import Console

from lowtide import BatchState, BatchStatus
from lowtide.models import to_builtins

STATE_STYLE = {
    BatchState.PENDING: "dim",
    BatchState.RUNNING: "cyan",
    BatchState.CANCELLING: "yellow",
    BatchState.COMPLETED: "green",
    BatchState.FAILED: "red",
    BatchState.EXPIRED: "yellow",
    BatchState.CANCELLED: "yellow",
    BatchState.DELETING: "dim",
}


def stdout() -> Console:
    """For people, on standard output."""
    return Console(highlight=False)


def stderr() -> Console:
    """For people, while standard output belongs to data."""
    return Console(stderr=True, highlight=False)


def print_json(value: object, *, indent: int = 2) -> None:
    """Prints one JSON document; on one line where `indent` is 0."""
    encoded = msgspec.json.encode(value)
    sys.stdout.buffer.write((msgspec.json.format(encoded, indent=indent) if indent else encoded) + b"\n")
    sys.stdout.buffer.flush()


def status_data(status: BatchStatus) -> dict[str, Any]:
    """A batch's status as plain data."""
    return {**to_builtins(status), "settled": status.settled, "finished": status.finished}


def state_text(state: BatchState) -> str:
    """A state in its colour."""
    return f"[{STATE_STYLE[state]}]{state}[/]"


def duration(seconds: float) -> str:
    """A length of time, as a person would say it."""
    whole = max(0, int(seconds))
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {left:02} s" if minutes else f"{left} s"


def ago(moment: float) -> str:
    """How long ago a Unix time was."""
    return f"{duration(time.time() - moment)} ago"


def local_time(moment: float) -> str:
    """A Unix time on the local clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def outcome(status: BatchStatus) -> str:
    """The counts of a batch in one line, zeros left out."""
    counts = ((name, getattr(status, name)) for name in ("succeeded", "failed", "expired", "cancelled"))
    done = ", ".join(f"{count:,} {name}" for name, count in counts if count)
    return f"{status.settled:,} of {status.total:,} done" + (f": {done}" if done else "")
