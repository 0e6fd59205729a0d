"""Writes lines and keys that exist already as the blobs of a batch: see `lowtide.spool.format`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import IO

from lowtide.protocol import BatchFiles
from lowtide.spool.blobs import Spool
from lowtide.spool.format import ENTRY, HEADER_BYTES, WIDE_ENTRY, Content, Header, packed


class LineWriter:
    """Takes the line and the key line of each request, in order."""

    def __init__(self, lines: IO[bytes], keys: IO[bytes], index: IO[bytes], *, wide: bool) -> None:
        self._lines, self._keys, self._index, self._wide = lines, keys, index, wide
        self._line_end = self._key_end = self._tokens = self._output = 0
        index.write(Header(wide=wide).encoded())

    def add(self, line: bytes, key_line: bytes, tokens: int, output: int = 0) -> None:
        """Adds a request: its line for the provider and its key line, with their newlines, and its estimated tokens.

        `output` are its most output tokens, which only a wide index counts.
        """
        self._mark()
        self._lines.write(line)
        self._keys.write(key_line)
        self._line_end += len(line)
        self._key_end += len(key_line)
        self._tokens += tokens
        self._output += output

    def finish(self) -> None:
        """Completes the index."""
        self._mark()

    def _mark(self) -> None:
        sums = self._line_end, self._key_end, self._tokens
        self._index.write(WIDE_ENTRY.pack(*sums, self._output) if self._wide else ENTRY.pack(*sums))


@contextmanager
def write_unpacked(spool: Spool, files: BatchFiles, *, wide: bool = False) -> Iterator[LineWriter]:
    """Opens the blobs of a large batch. They appear when the block ends without an error. Raises `SpoolError`.

    `wide`: whether the index counts output tokens too, as it does under a budget.
    """
    with (
        spool.write(files.requests) as lines,
        spool.write(files.keys) as keys,
        spool.write(files.index) as index,
    ):
        writer = LineWriter(lines, keys, index, wide=wide)
        yield writer
        writer.finish()


@contextmanager
def write_packed(spool: Spool, files: BatchFiles, *, wide: bool = False) -> Iterator[LineWriter]:
    """Opens the one blob of a batch without groups, which is held in memory: as `write_unpacked`."""
    lines, keys, index = BytesIO(), BytesIO(), BytesIO()
    writer = LineWriter(lines, keys, index, wide=wide)
    yield writer
    writer.finish()
    contents = {
        Content.INDEX: index.getvalue()[HEADER_BYTES:],
        Content.KEYS: keys.getvalue(),
        Content.GROUPS: b"",
        Content.LINES: lines.getvalue(),
    }
    spool.put(files.index, packed(contents, wide=wide))
