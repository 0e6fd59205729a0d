"""The standard streams of a command, any of which may be closed, full or in another encoding."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import BinaryIO

from lowtide_cli.terminal.errors import CommandError

_FEWEST_COLUMNS = 20


def prepare_streams() -> None:
    """Makes the standard streams usable in every locale. Raises `CommandError` if standard output is closed."""
    # Python sets a closed stream to None. The next file that is opened would get its number.
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - open until the process ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stdout is None:
        raise CommandError("standard output is closed")
    # Some terminals report no width, and output for so few columns has no text.
    if os.environ.get("COLUMNS", "").isdecimal() and int(os.environ["COLUMNS"]) < _FEWEST_COLUMNS:
        del os.environ["COLUMNS"]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def standard_input(wanted: str) -> BinaryIO:
    """Returns standard input for reading bytes. At a terminal, says first that the command waits for `wanted`."""
    if sys.stdin.isatty():
        print(f"reading {wanted} from this terminal; Ctrl-D on an empty line ends it", file=sys.stderr)  # noqa: T201
    return sys.stdin.buffer


def report(problem: str) -> None:
    """Prints an error. Further lines are indented, so that none looks like a message of Lowtide's own."""
    from lowtide.redaction import redacted  # deferred: `--help` must be quick
    from lowtide.text import printable

    print("lowtide: " + printable(redacted(problem)).replace("\n", "\n  "), file=sys.stderr, flush=True)  # noqa: T201


def discard_output() -> None:
    """Discards the rest of standard output, so that Python does not write it again when the process ends."""
    if sys.stdout is None:
        return
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
