"""Errors that make a job fail as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class JobFailed(Exception):
    """A job has failed.

    code: the gRPC code (3 INVALID_ARGUMENT, 7 PERMISSION_DENIED, 9 FAILED_PRECONDITION, 13 INTERNAL).
    message: the text for the caller.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@contextmanager
def failures(what: str, *, missing: int) -> Iterator[None]:
    """Turns exceptions of Google's clients into JobFailed.

    what: the start of the message.
    missing: the gRPC code for an object or a table that does not exist.
    """
    from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound
    from requests.exceptions import RequestException

    try:
        yield
    except NotFound as error:
        raise JobFailed(missing, f"{what}: it does not exist") from error
    except Forbidden as error:
        raise JobFailed(7, f"{what}: permission denied") from error
    except (GoogleAPIError, RequestException, OSError, ValueError) as error:
        raise JobFailed(13, f"{what}: {error}") from error
