"""Cuts a stream of lines into segments as it passes, and stores it in pieces of whole ones, without ever holding it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import IO, Any, NamedTuple, Self

_SEGMENTS_A_PIECE = 8
"""Fewer would mean more files and calls, more a longer wait for the first results."""


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
        data, base = bytes(chunk), self._position
        at, rows, full = 0, self._rows, self._start + self._max_bytes - base
        # Line by line: looking for a newline takes less time than counting the newlines among so many bytes.
        while at := data.find(b"\n", at) + 1:
            rows += 1
            if at >= full or rows >= self._max_rows:
                self.ends.append(base + at)
                self._start, rows, full = base + at, 0, at + self._max_bytes
        self._rows = rows
        self._position = base + len(data)

    def finish(self) -> list[int]:
        """Ends the stream; its last line may lack a newline. Returns all ends."""
        if self._position > self._start:
            self.ends.append(self._position)
            self._start = self._position
        return self.ends


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


class Piece(NamedTuple):
    """A file of some whole segments, complete."""

    number: int
    ends: list[int]
    """Where its segments end in it."""
    collected: int
    """Bytes of the whole stream up to its end."""
    last: bool


class PieceWriter:
    """A sink for a download: writes it as pieces, and releases each as soon as it is complete.

    So the first segments are delivered while the last are still on their way. What was `collected` before, by a run
    that did not come to its end, is left out. Use as a context manager: an exception drops the open piece.
    """

    def __init__(
        self,
        cutter: SegmentCutter,
        *,
        opened: Callable[[int], AbstractContextManager[IO[bytes]]],
        release: Callable[[Piece], None],
        keep: Callable[[], None],
        collected: int = 0,
    ) -> None:
        self._cutter = cutter
        self._opened = opened
        self._release = release
        self._keep = keep
        self._skip = self._collected = collected
        self._position = self._start = self._number = self._released = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._file = self._stack.enter_context(self._opened(self._number))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, chunk: bytes) -> int:
        """Takes the next bytes."""
        data = chunk[self._skip :]
        self._skip -= len(chunk) - len(data)
        self._cutter.feed(data)
        if len(self._cutter.ends) - self._released >= _SEGMENTS_A_PIECE:
            head = self._cutter.ends[-1] - self._position
            self._file.write(memoryview(data)[:head])
            self._complete(last=False)
            self._file = self._stack.enter_context(self._opened(self._number))
            self._file.write(memoryview(data)[head:])
        else:
            self._file.write(data)
        self._position += len(data)
        self._keep()
        return len(chunk)

    def finish(self) -> int:
        """Ends the download; returns how many segments it brought."""
        self._cutter.finish()
        self._complete(last=True)
        return self._released

    def _complete(self, *, last: bool) -> None:
        self._stack.close()
        ends = self._cutter.ends[self._released :]
        end = ends[-1] if ends else self._start
        self._release(Piece(self._number, [at - self._start for at in ends], self._collected + end, last))
        self._number, self._start, self._released = self._number + 1, end, len(self._cutter.ends)
