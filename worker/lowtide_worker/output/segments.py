"""The cut of a stream of lines into segments while it passes, and the pieces that store it.

A piece is a file of a few whole segments. No more than one chunk of the stream is in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import IO, Any, NamedTuple, Self

from lowtide_worker.providers import Writer

_SEGMENTS_A_PIECE = 8
"""Segments per piece. Fewer would mean more files and calls; more would delay the first results."""


class SegmentCutter:
    """Finds the ends of segments in a stream: the first line end at or after `max_bytes`, or after `max_rows` lines.

    A line is never cut, however long it is. Lines end with a newline byte, which no other UTF-8 character contains.
    """

    def __init__(self, *, max_bytes: int, max_rows: int) -> None:
        self._max_bytes = max_bytes
        self._max_rows = max_rows
        self._position = self._start = self._rows = 0
        self.ends: list[int] = []
        """The byte offsets at which the segments so far end."""

    def feed(self, chunk: bytes | memoryview) -> None:
        """Reads the next bytes of the stream."""
        data, base = bytes(chunk), self._position
        at, rows, full = 0, self._rows, self._start + self._max_bytes - base
        # Line by line: finding the next newline is faster than counting the newlines in a chunk.
        while at := data.find(b"\n", at) + 1:
            rows += 1
            if at >= full or rows >= self._max_rows:
                self.ends.append(base + at)
                self._start, rows, full = base + at, 0, at + self._max_bytes
        self._rows = rows
        self._position = base + len(data)

    def finish(self) -> list[int]:
        """Ends the stream, whose last line may lack a newline. Returns the ends of all segments."""
        if self._position > self._start:
            self.ends.append(self._position)
            self._start = self._position
        return self.ends


class SegmentedWriter:
    """A sink that writes a stream into a file, finds its segments and calls `keep` to renew the lease."""

    def __init__(self, file: IO[bytes], cutter: SegmentCutter, keep: Callable[[], None]) -> None:
        self._file = file
        self._cutter = cutter
        self._keep = keep

    def write(self, chunk: bytes) -> int:
        """Writes the next bytes; returns how many they are."""
        self._file.write(chunk)
        self._cutter.feed(chunk)
        self._keep()
        return len(chunk)


class Piece(NamedTuple):
    """A complete file of whole segments."""

    number: int
    """The number of the piece in this download, from 0."""
    ends: list[int]
    """The byte offsets within the piece at which its segments end."""
    collected: int
    """Bytes of the whole stream up to the end of the piece."""
    last: bool
    """Whether the stream ends with the piece."""


class PieceWriter:
    """A sink that writes a download as pieces, and releases each as soon as it is complete.

    So the first segments are delivered while the last are still being downloaded. Use it as a context manager: an
    exception drops the open piece.

    - `cutter`: finds the segments.
    - `opened`: opens the file of the piece with a number, for writing.
    - `release`: called with each complete piece.
    - `keep`: called after each write, to renew the lease.
    - `collected`: the bytes that an earlier, interrupted run has released; they are skipped.
    - `in_pieces`: whether a piece may be released before the whole download is there; else there is one piece.
    """

    def __init__(
        self,
        cutter: SegmentCutter,
        *,
        opened: Callable[[int], AbstractContextManager[Writer]],
        release: Callable[[Piece], None],
        keep: Callable[[], None],
        collected: int = 0,
        in_pieces: bool = True,
    ) -> None:
        self._most = _SEGMENTS_A_PIECE if in_pieces else sys.maxsize
        self._cutter = cutter
        self._opened = opened
        self._release = release
        self._keep = keep
        self._skip = self._collected = collected
        self._position = self._start = self._number = self._released = 0
        self._stack = ExitStack()

    def begin(self, offset: int) -> None:
        """Says that the stream begins at this offset of the output, which the bytes to skip are counted from."""
        self._skip = self._collected - offset

    def __enter__(self) -> Self:
        self._file = self._stack.enter_context(self._opened(self._number))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, chunk: bytes) -> int:
        """Writes the next bytes; returns how many they are."""
        data = chunk[self._skip :]
        self._skip -= len(chunk) - len(data)
        self._cutter.feed(data)
        if len(self._cutter.ends) - self._released >= self._most:
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
        """Ends the download and releases the last piece. Returns the number of segments."""
        self._cutter.finish()
        self._complete(last=True)
        return self._released

    def _complete(self, *, last: bool) -> None:
        self._stack.close()
        ends = self._cutter.ends[self._released :]
        end = ends[-1] if ends else self._start
        self._release(Piece(self._number, [at - self._start for at in ends], self._collected + end, last))
        self._number, self._start, self._released = self._number + 1, end, len(self._cutter.ends)
