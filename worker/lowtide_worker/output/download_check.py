"""The check that a download is the output its job reports, and not an error page or a truncated file."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Self

from lowtide_worker.providers import IncompleteOutput

_SPACE = b" \t\r\n"
_HEAD_BYTES = 1 << 16


class DownloadCheck:
    """A sink for the files of a download: passes the bytes on, and counts the rows in them.

    A row is a line whose first byte is `{`, as the provider writes it. So an HTML page has no row, and an error that is
    pretty-printed over several lines is one row. `write` raises `IncompleteOutput` before it passes on anything that
    does not begin with an object. `finish` raises it for fewer rows than `expected`.

    - `write`: takes the bytes that are passed on.
    - `rows`: the rows before the first byte, where an earlier run has stored them.
    """

    def __init__(self, write: Callable[[bytes], object] = bytes, *, expected: int, rows: int = 0) -> None:
        self._write = write
        self._expected = expected
        self._head = b""
        self._last = b"\n"
        self._begun = False
        self.rows = rows
        """The rows so far."""

    def onto(self, file: IO[bytes]) -> Self:
        """Passes what comes on to another file."""
        self._write = file.write
        return self

    def write(self, data: bytes | memoryview) -> int:
        """Checks the next bytes and passes them on; returns how many they are. Raises `IncompleteOutput`."""
        chunk = bytes(data)
        if not self._begun and (first := chunk.lstrip(_SPACE)):
            if not first.startswith(b"{"):
                raise IncompleteOutput("it is not made of rows")
            self._begun = True
        if self._last == b"\n" and chunk.startswith(b"{"):
            self.rows += 1
        self.rows += chunk.count(b"\n{")
        self._last = chunk[-1:] or self._last
        if len(self._head) < _HEAD_BYTES:
            self._head += chunk[: _HEAD_BYTES - len(self._head)]
        self._write(chunk)
        return len(chunk)

    def finish(self) -> None:
        """Checks the whole at its end, before the last piece is released. Raises `IncompleteOutput`."""
        if self.rows < self._expected:
            raise IncompleteOutput(f"it has {self.rows} of {self._expected} rows")
        if self.rows == 1 and b'"error"' in self._head and b'"key"' not in self._head:
            raise IncompleteOutput("it is an error that belongs to no request")
