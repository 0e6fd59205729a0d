"""The terminal side of the command line: streams, arguments, help, errors and exit codes.

`terminal.output` prints tables and JSON. Import it by itself: it needs `lowtide` and rich, and this package must stay
quick to import because `lowtide --help` imports it.
"""

from __future__ import annotations

from lowtide_cli.terminal.arguments import bad_argument
from lowtide_cli.terminal.errors import CommandError, MissingExtra, WrongUsage, one_line
from lowtide_cli.terminal.exits import (
    EXIT_CODES,
    EXIT_CODES_OF_ESTIMATE,
    EXIT_CODES_OF_SINGLES,
    Exit,
    exit_of,
    exit_of_result,
)
from lowtide_cli.terminal.help import App
from lowtide_cli.terminal.interruption import NOTHING_DONE, NOTHING_SUBMITTED, on_interruption
from lowtide_cli.terminal.streams import discard_output, prepare_streams, report
from lowtide_cli.terminal.variables import warn_of_unknown_variables

__all__ = [
    "EXIT_CODES",
    "EXIT_CODES_OF_ESTIMATE",
    "EXIT_CODES_OF_SINGLES",
    "NOTHING_DONE",
    "NOTHING_SUBMITTED",
    "App",
    "CommandError",
    "Exit",
    "MissingExtra",
    "WrongUsage",
    "bad_argument",
    "discard_output",
    "exit_of",
    "exit_of_result",
    "on_interruption",
    "one_line",
    "prepare_streams",
    "report",
    "warn_of_unknown_variables",
]
