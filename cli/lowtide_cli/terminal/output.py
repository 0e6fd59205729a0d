"""Output: tables for people, JSON for programs, and the format of numbers, durations and times."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from lowtide import BatchState, BatchStatus, Usage, Waiting
from lowtide.models import to_builtins
from lowtide.text import counted, duration, on_one_line, printable

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
"""Characters that JSON does not escape but a terminal acts on. In JSON they occur only inside strings."""


_PIPED_COLUMNS = 1000


class Screen(Console):
    """A console that is safe for foreign text: it cannot move the cursor, nor colour, hide or reorder output.

    Rich turns all output into segments, which keep text and colour apart. So this is the one place that every label,
    key and error message from outside passes.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Returns the segments of `renderable`, with safe text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints as `Console.print`; where the output is no terminal, without blanks at the ends of lines."""
        if self.is_terminal:
            super().print(*objects, **options)
            return
        # Rich fills each line of a table up to the width of its columns.
        with self.capture() as printed:
            super().print(*objects, **options)
        self.file.write("\n".join(line.rstrip(" ") for line in printed.get().split("\n")))
        self.file.flush()


def stdout() -> Console:
    """Returns a console for people, on standard output."""
    return _wide_if_piped(Screen(highlight=False))


def stderr() -> Console:
    """Returns a console for people, on standard error, for commands that write data to standard output."""
    return _wide_if_piped(Screen(stderr=True, highlight=False))


def busy(doing: str) -> AbstractContextManager[object]:
    """Shows on a terminal, during the block, what the command is doing. Nothing of it stays."""
    screen = stderr()
    return screen.status(doing) if screen.is_terminal else nullcontext()


def _wide_if_piped(screen: Screen) -> Screen:
    """Widens a console that is no terminal, so that each line arrives whole at `grep` and the like."""
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = _PIPED_COLUMNS
    return screen


def quiet_json(encoded: bytes) -> bytes:
    """Returns the same JSON, with every character escaped that a terminal acts on."""
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded
    return _ACTIVE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", encoded.decode()).encode()


def quiet_line(line: bytes) -> bytes:
    """Returns a line of text with a mark in place of each character that a terminal acts on."""
    return printable(line.decode(errors="replace").removesuffix("\r\n")).encode() + b"\n" * line.endswith(b"\r\n")


def print_json(value: object, *, indent: int = 2) -> None:
    """Prints one JSON document, on one line if `indent` is 0."""
    encoded = msgspec.json.encode(value)
    sys.stdout.buffer.write(quiet_json(msgspec.json.format(encoded, indent=indent) if indent else encoded) + b"\n")
    sys.stdout.buffer.flush()


def status_data(status: BatchStatus) -> dict[str, Any]:
    """Returns the status of a batch as plain data."""
    return {**to_builtins(status), "settled": status.settled, "finished": status.finished}


def state_text(state: BatchState) -> str:
    """Returns a state in its colour, as rich markup."""
    return f"[{STATE_STYLE[state]}]{state}[/]"


def ago(moment: float) -> str:
    """Returns the time since `moment`, a Unix time, in words."""
    return f"{duration(time.time() - moment)} ago"


def age(moment: float) -> str:
    """Returns the time since `moment`, a Unix time, in its largest unit, such as "2 h"."""
    return " ".join(duration(time.time() - moment).split()[:2])


def local_time(moment: float) -> str:
    """Returns a Unix time as date and time in the local time zone, which it names: problems have times in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(moment))


def outcome(status: BatchStatus) -> str:
    """Returns the counts of a batch in one line, without zeros."""
    counts = ((name, getattr(status, name)) for name in ("succeeded", "failed", "expired", "cancelled"))
    done = ", ".join(f"{count:,} {name}" for name, count in counts if count)
    return f"{status.settled:,} of {status.total:,} done" + (f": {done}" if done else "")


def counts_text(counts: Mapping[str, int]) -> str:
    """Returns counts by name in one line, the highest first."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def tokens_text(usage: Usage) -> str:
    """Returns tokens in one line; empty where there are none. Thoughts are paid as output and shown apart."""
    parts = {
        "in": usage.prompt_token_count,
        "of them cached": usage.cached_content_token_count,
        "for tools": usage.tool_use_prompt_token_count,
        "out": usage.candidates_token_count,
        "thoughts": usage.thoughts_token_count,
    }
    shown = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
    return f"{usage.total_token_count:,}" + (f": {shown}" if shown else "") if usage != Usage() else ""


def waiting_text(status: BatchStatus) -> str:
    """Returns what a batch waits for in one line; empty where nothing waits."""
    waiting = status.waiting
    if waiting is None:
        return ""
    tokens = f" with {counted(waiting.tokens, 'token')}" if waiting.tokens else ""
    place = f"; place {waiting.position:,} in the line" if waiting.position else ""
    tried = "" if waiting.position else _next_try(waiting)
    return on_one_line(f"{counted(waiting.requests, 'request')}{tokens}: {waiting.reason}{place}{tried}")


def _next_try(waiting: Waiting) -> str:
    if waiting.next_try_at is None:
        return ""
    moment = local_time(waiting.next_try_at)
    if waiting.budget and waiting.budget.reserved:
        # Each job that ends returns what it has not used of the budget, and then the others are tried.
        return f"; next try as soon as a job under way ends, at {moment} at the latest"
    return f"; next try at {moment}"


def answered_text(status: BatchStatus) -> str:
    """Returns how many requests have an answer: those that were cancelled or have expired have none."""
    return f"{status.answered:,} of {status.total:,} answered"


def labels_text(status: BatchStatus) -> str:
    """Returns the labels of a batch in one line."""
    return ", ".join(f"{name}={value}" for name, value in status.labels.items())
