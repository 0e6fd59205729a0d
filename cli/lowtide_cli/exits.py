"""Exit codes: what a script learns from `lowtide` without reading its output."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lowtide import BatchStatus

HELP = (
    "Exit codes: 0 every request succeeded, or the batch is not finished yet; 1 error; 2 wrong usage; "
    "3 finished, but requests failed; 4 the batch was cancelled or expired; 130 interrupted; "
    "129, 143 ended by SIGHUP, SIGTERM."
)


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    ERROR = 1
    USAGE = 2
    FAILURES = 3
    STOPPED = 4
    INTERRUPTED = 130


def exit_of(status: BatchStatus) -> Exit:
    """What a batch in this state means to a script."""
    from lowtide import BatchState  # deferred: `--help` reads this module and must be quick

    if not status.finished:
        return Exit.OK
    if status.state in {BatchState.CANCELLED, BatchState.EXPIRED}:
        return Exit.STOPPED
    return Exit.OK if status.succeeded == status.total else Exit.FAILURES
