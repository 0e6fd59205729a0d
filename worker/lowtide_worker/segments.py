"""Cuts a stream of lines into segments as it passes, without ever holding it."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO


class SegmentCutter:
    """Finds where segments end: at the first line end at or after `max_bytes`, or after `max_rows` lines.

    A line is never cut, however long. Lines end with a newline byte, which no UTF-8 character contains.
    """

    def __init__(self, *, max_bytes: int, max_rows: int) -> None:
        self._max_bytes = max_bytes
        self._max_rows = max_rows
        self._position = self._start = self._rows = 0
        self.ends: list[int] = []
        """Byte offsets at which the segments end so far."""

    def feed(self, chunk: bytes | memoryview) -> None:
        """Takes the next bytes of the stream."""
        data = bytes(chunk)
        base, at = self._position, 0
        while at < len(data):
            mark = max(at, self._start + self._max_bytes - base)
            end = min(len(data), mark)
            lines = data.count(b"\n", at, end)
            if self._rows + lines >= self._max_rows:
                at = _after_newlines(data, at, self._max_rows - self._rows)
                self._cut(base + at)
            elif mark > len(data):
                self._rows += lines
                at = end
            else:
                # The segment is full in bytes: it ends with the line that reaches or crosses the mark.
                self._rows += lines
                newline = data.find(b"\n", max(end - 1, at))
                if newline < 0:
                    at = len(data)
                else:
                    at = newline + 1
                    self._cut(base + at)
        self._position = base + len(data)

    def finish(self) -> list[int]:
        """Ends the stream; its last line may lack a newline. Returns all ends."""
        if self._position > self._start:
            self._cut(self._position)
        return self.ends

    def _cut(self, at: int) -> None:
        self.ends.append(at)
        self._start, self._rows = at, 0


def _after_newlines(data: bytes, at: int, count: int) -> int:
    for _ in range(count):
        at = data.index(b"\n", at) + 1
    return at


class SegmentedWriter:
    """A sink for a download: passes the bytes on to a file, finds the segments, keeps the lease alive."""

    def __init__(self, file: IO[bytes], cutter: SegmentCutter, keep: Callable[[], None]) -> None:
        self._file = file
        self._cutter = cutter
        self._keep = keep

    def write(self, chunk: bytes) -> int:
        """Takes the next bytes."""
        self._file.write(chunk)
        self._cutter.feed(chunk)
        self._keep()
        return len(chunk)
