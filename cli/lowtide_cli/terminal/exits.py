"""Exit codes, so that a script knows the outcome of `lowtide` without parsing its output."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lowtide import BatchStatus, ResultStatus

EXIT_CODES = (
    "Exit codes: 0 every request succeeded, or the batch is not finished yet; 1 error; 2 wrong usage; "
    "3 finished, but requests failed; 4 the batch was cancelled or expired; 130 interrupted; "
    "129, 143 ended by SIGHUP, SIGTERM."
)
"""The exit codes as help shows them."""
EXIT_CODES_OF_ESTIMATE = (
    "Exit codes: 0 submit would take every request; 1 it would refuse some, or an error; 2 wrong usage; "
    "130 interrupted; 129, 143 ended by SIGHUP, SIGTERM."
)
"""Those of `lowtide estimate`, which knows requests and no batch."""
EXIT_CODES_OF_SINGLES = (
    "Exit codes: 0 the request succeeded, or has no result yet; 1 error, or the time of --timeout is over; "
    "2 wrong usage; 3 the request failed; 4 it was cancelled or expired; 130 interrupted; "
    "129, 143 ended by SIGHUP, SIGTERM."
)
"""Those of commands about one request."""


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    ERROR = 1
    USAGE = 2
    FAILURES = 3
    STOPPED = 4
    INTERRUPTED = 130


def exit_of(status: BatchStatus) -> Exit:
    """Returns the exit code for a batch in this state."""
    from lowtide import BatchState  # deferred: `--help` imports this module and must be quick

    if not status.finished:
        return Exit.OK
    if status.state in {BatchState.CANCELLED, BatchState.EXPIRED}:
        return Exit.STOPPED
    return Exit.OK if status.succeeded == status.total else Exit.FAILURES


def exit_of_result(status: ResultStatus) -> Exit:
    """Returns the exit code for the result of one request."""
    from lowtide import ResultStatus  # deferred likewise

    if status is ResultStatus.SUCCEEDED:
        return Exit.OK
    return Exit.FAILURES if status is ResultStatus.FAILED else Exit.STOPPED
