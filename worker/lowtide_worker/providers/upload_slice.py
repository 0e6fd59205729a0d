"""A range of a spool blob as a file of its own, so that a job's lines are uploaded from where they lie."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO

MOST_AT_ONCE = 4 << 20
"""Google's clients send what one read gives them, and hold two of those; the SDK asks for 8 MiB. Resumable uploads want
multiples of 256 KiB."""


class SpoolSlice(io.RawIOBase):
    """Bytes [start, end) of a seekable file, read-only and seekable; `keep` is called as they are read."""

    def __init__(self, file: IO[bytes], start: int, end: int, keep: Callable[[], None]) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._size = end - start
        self._at = 0
        self._keep = keep

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position within the slice."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves within the slice."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, but no more than 4 MiB; all that is left where it is negative or None."""
        if size is None or size < 0:
            return self.readall()
        self._keep()
        self._file.seek(self._start + self._at)
        data = self._file.read(min(size, MOST_AT_ONCE, max(0, self._size - self._at)))
        self._at += len(data)
        return data
