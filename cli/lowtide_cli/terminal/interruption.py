"""Ctrl-C: the line about it, and what a command has left. `KeyboardInterrupt` carries the words as its message."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

NOTHING_DONE = "nothing is done"
NOTHING_SUBMITTED = "nothing is submitted"


@contextmanager
def on_interruption(left: str) -> Iterator[None]:
    """Gives Ctrl-C within the block a message about what is left, unless it has one."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        if interruption.args:
            raise
        raise KeyboardInterrupt(left) from interruption


def report_interruption(interruption: KeyboardInterrupt) -> None:
    """Prints that the command was interrupted, and what is left.

    It imports nothing: an import that was interrupted leaves parts of a package, on which the next import may fail.
    """
    start = "\n" if sys.stderr.isatty() else ""  # a terminal has printed ^C
    words = ": ".join(["interrupted", *map(str, interruption.args)])
    print(f"{start}lowtide: {words}", file=sys.stderr, flush=True)  # noqa: T201
