"""Writes lines and keys that exist already as the blobs of a large batch: see `lowtide.spool.format`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from lowtide.protocol import BatchFiles
from lowtide.spool.blobs import Spool
from lowtide.spool.format import ENTRY, Header


class UnpackedWriter:
    """Takes the line and the key line of each request, in order."""

    def __init__(self, lines: IO[bytes], keys: IO[bytes], index: IO[bytes]) -> None:
        self._lines, self._keys, self._index = lines, keys, index
        self._line_end = self._key_end = self._tokens = 0
        index.write(Header().encoded())

    def add(self, line: bytes, key_line: bytes, tokens: int) -> None:
        """Adds a request: its line for the provider and its key line, with their newlines, and its estimated tokens."""
        self._mark()
        self._lines.write(line)
        self._keys.write(key_line)
        self._line_end += len(line)
        self._key_end += len(key_line)
        self._tokens += tokens

    def finish(self) -> None:
        """Completes the index."""
        self._mark()

    def _mark(self) -> None:
        self._index.write(ENTRY.pack(self._line_end, self._key_end, self._tokens))


@contextmanager
def write_unpacked(spool: Spool, files: BatchFiles) -> Iterator[UnpackedWriter]:
    """Opens the blobs of a batch. They appear when the block ends without an error. Raises `SpoolError`."""
    with (
        spool.write(files.requests) as lines,
        spool.write(files.keys) as keys,
        spool.write(files.index) as index,
    ):
        writer = UnpackedWriter(lines, keys, index)
        yield writer
        writer.finish()
