"""Errors of object stores as `OSError`, with a text for people."""

from __future__ import annotations

import errno

from lowtide.errors import SpoolError
from lowtide.extras import install
from lowtide.spool.objects import Refused

_OF_THE_CALL = frozenset({401, 403, 404, 408, 412, 416, 425, 429, 502, 503, 504})
"""Statuses that say nothing about one object: credentials, a missing bucket, conditions, a store that is busy or away.

S3 answers 503 (SlowDown) to calls about one part of a bucket, for minutes, while it serves the others.
"""
_MAX_CHARS = 500
"""An error page of a proxy may be long, and may hold an object's content."""


def failure(place: str, said: object, status: int | None, advice: dict[int, str]) -> OSError:
    """Returns the error for a call that failed.

    - `place`: the bucket, as in `gs://bucket`.
    - `said`: the library's text.
    - `status`: the HTTP status; None where there was no answer.
    - `advice`: by status, the remedy.
    """
    text = f"{place}: {str(said)[:_MAX_CHARS]}"
    if status in advice:
        text = f"{text}; {advice[status]}"
    # The library has repeated what fails with 500. It may be the object's own all the same, where others are served.
    if status is not None and status // 100 in (4, 5) and status not in _OF_THE_CALL:
        return Refused(errno.EIO, text)
    return OSError(errno.EACCES if status in (401, 403) else errno.EIO, text)


def absent(place: str, key: str) -> FileNotFoundError:
    """Returns the error for an object that does not exist."""
    return FileNotFoundError(errno.ENOENT, f"{place}/{key}: no such object")


def changed(place: str, key: str) -> OSError:
    """Returns the error for an object that was replaced while it was read."""
    return OSError(errno.ESTALE, f"{place}/{key} was replaced while it was read; read it again")


def not_installed(scheme: str, extra: str) -> SpoolError:
    """Returns the error for a library that is not installed."""
    return SpoolError(f"a spool at {scheme}:// needs its library: {install(extra)}")
