"""Scrutiny of a download: whether it is the output that its job speaks of, or something else in its place."""

from __future__ import annotations

from collections.abc import Callable

from lowtide.models import ResultError
from lowtide_worker.providers import Unavailable

_SPACE = b" \t\r\n"
_HEAD_BYTES = 1 << 16


class Doubtful(Unavailable):
    """A download that came to its end and is not what the job says: to be had again, while there is patience."""


class Scrutiny:
    """A sink for a download: passes the bytes on, and counts the rows in them.

    A row is a line that begins with an object, in its first column, as the provider writes them. So a page of HTML has
    none, and an error that is printed over several lines is one. Raises `Doubtful` before it passes on the first byte
    of what is no object, and in `finish` for fewer rows than `expected`.
    """

    def __init__(self, write: Callable[[bytes], object], *, expected: int) -> None:
        self._write = write
        self._expected = expected
        self._head = b""
        self._last = b"\n"
        self._begun = False
        self._rows = 0

    def write(self, chunk: bytes) -> int:
        """Takes the next bytes."""
        if not self._begun and (first := chunk.lstrip(_SPACE)):
            if not first.startswith(b"{"):
                raise _doubtful("it is not made of rows")
            self._begun = True
        if self._last == b"\n" and chunk.startswith(b"{"):
            self._rows += 1
        self._rows += chunk.count(b"\n{")
        self._last = chunk[-1:] or self._last
        if len(self._head) < _HEAD_BYTES:
            self._head += chunk[: _HEAD_BYTES - len(self._head)]
        self._write(chunk)
        return len(chunk)

    def finish(self) -> None:
        """Ends the download, before the last of it counts."""
        if self._rows < self._expected:
            raise _doubtful(f"it has {self._rows} of {self._expected} rows")
        if self._rows == 1 and b'"error"' in self._head and b'"key"' not in self._head:
            raise _doubtful("it is an error that belongs to no request")


def _doubtful(why: str) -> Doubtful:
    return Doubtful(ResultError(reason="INCOMPLETE_OUTPUT", message=f"the output is not what the job says: {why}"))
