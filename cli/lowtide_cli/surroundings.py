"""The surroundings of a command: its streams, its arguments and its environment, none of which need be well."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from lowtide_cli.errors import CommandError

_NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def prepare_streams() -> None:
    """Makes the standard streams usable in every locale. Raises `CommandError` where there is no standard output."""
    # A stream that was closed is None in Python. What is opened next would get its number.
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stdout is None:
        raise CommandError("standard output is closed")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def bad_argument(arguments: Sequence[str]) -> str | None:
    """The problem with the first argument that is no text; None where all are."""
    for number, argument in enumerate(arguments, 1):
        if _NOT_TEXT.search(argument):
            return f"argument {number} has control characters, or bytes that are no text in this locale: {argument!a}"
    return None


def tell_unknown_variables() -> None:
    """Warns of variables that look like settings and are none, most likely by a slip."""
    # Nothing need be imported where there is nothing of ours.
    if Path(".env").exists() or any(name.upper().startswith("LOWTIDE_") for name in os.environ):
        from lowtide.text import on_one_line
        from lowtide_worker.host.variables import unknown_variables

        for problem in unknown_variables():
            print(f"lowtide: warning: {on_one_line(problem)}", file=sys.stderr)  # noqa: T201
