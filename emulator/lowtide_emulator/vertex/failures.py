"""What makes a job fail as a whole."""

from __future__ import annotations


class JobFailed(Exception):
    """The job cannot go on.

    code: gRPC code (3 INVALID_ARGUMENT, 7 PERMISSION_DENIED, 9 FAILED_PRECONDITION, 13 INTERNAL).
    message: for the caller to read.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
