"""Errors of object stores as `OSError`, with a text for people."""

from __future__ import annotations

import errno

from lowtide.errors import SpoolError
from lowtide.extras import install

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
