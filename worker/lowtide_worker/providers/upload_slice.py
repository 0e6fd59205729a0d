"""A byte range of a spool blob as a file object, so that a job's lines are uploaded without a copy."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO

from lowtide.errors import SpoolError

MOST_AT_ONCE = 4 << 20
"""Size limit of one read, in bytes. Google's clients send what one read returns, and hold two such blocks in memory.
The SDK asks for 8 MiB. Resumable uploads need multiples of 256 KiB."""


class SpoolSlice(io.RawIOBase):
    """The bytes [start, end) of a seekable file, read-only and seekable. Each read calls `keep`, to renew the lease."""

    def __init__(self, file: IO[bytes], start: int, end: int, keep: Callable[[], None]) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._size = end - start
        self._at = 0
        self._keep = keep

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the position within the slice, in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves within the slice and returns the new position, in bytes."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Returns up to `size` bytes, at most 4 MiB at once. With None or a negative size, returns all that is left."""
        if size is None or size < 0:
            return self.readall()
        self._keep()
        self._file.seek(self._start + self._at)
        wanted = min(size, MOST_AT_ONCE, max(0, self._size - self._at))
        data = self._file.read(wanted)
        if len(data) < wanted:
            # Google's clients take an empty read as "not yet", and would send empty chunks for ever.
            missing = wanted - len(data)
            raise SpoolError(f"the requests in the spool end {missing:,} bytes early; restore them from a backup")
        self._at += len(data)
        return data
