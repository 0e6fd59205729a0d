"""What is printed where, and how: tables for people, JSON for programs, numbers with their commas."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable
from typing import Any

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from lowtide import BatchState, BatchStatus
from lowtide.models import to_builtins
from lowtide.text import printable

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


_ACTIVE_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that JSON leaves as they are, and a terminal may not; they can only stand within a string."""


class Screen(Console):
    """A console on which nobody's text can move the cursor, colour, hide or reorder what is shown.

    Everything that is printed becomes segments of text, whose colours are not part of the text, so here is the one
    place that labels, keys and errors from outside all pass.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of what is printed."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def stdout() -> Console:
    """For people, on standard output."""
    return Screen(highlight=False)


def stderr() -> Console:
    """For people, while standard output belongs to data."""
    return Screen(stderr=True, highlight=False)


def quiet_json(encoded: bytes) -> bytes:
    """The same JSON with nothing in it that a terminal acts on."""
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded
    return _ACTIVE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", encoded.decode()).encode()


def print_json(value: object, *, indent: int = 2) -> None:
    """Prints one JSON document; on one line where `indent` is 0."""
    encoded = msgspec.json.encode(value)
    sys.stdout.buffer.write(quiet_json(msgspec.json.format(encoded, indent=indent) if indent else encoded) + b"\n")
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
