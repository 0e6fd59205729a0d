"""A range of a spool blob as a file of its own, so that a job's lines are uploaded from where they lie."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO


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
        """Up to `size` bytes, all that is left where it is negative or None."""
        left = max(0, self._size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        self._keep()
        self._file.seek(self._start + self._at)
        data = self._file.read(wanted)
        self._at += len(data)
        return data
