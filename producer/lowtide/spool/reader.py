"""Reads the accepted requests of a batch by ordinal: see `lowtide.spool.format`."""

from __future__ import annotations

import io
import sys
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import chain, pairwise
from typing import IO, NamedTuple

import msgspec

from lowtide.protocol import BatchFiles
from lowtide.spool.blobs import DamagedBlob, Spool
from lowtide.spool.format import HEADER_BYTES, PAIR, Content, Header, KeyLine, decode_key, key_decoder

_HEAD_BYTES = 1 << 17
"""Bytes of the first read, which has all contents of most small batches."""
_GAP = 256
"""Requests further apart than this are read separately, without those between them."""
_SPAN = 16_384
"""Most requests in one ranged read of keys."""


class _Place(NamedTuple):
    """The place of a content in the spool: bytes of a blob, up to the blob's end where `end` is None."""

    name: str
    start: int = 0
    end: int | None = None


class RequestReader:
    """Reads the accepted requests of a batch by ordinal. It is cheap to make, and reads when it first must.

    Its methods raise `DamagedBlob` for a blob that is missing, or not what its index says.
    """

    def __init__(self, spool: Spool, batch_id: str) -> None:
        self._spool = spool
        self._files = BatchFiles(batch_id)

    def byte_range(self, first: int, last: int) -> tuple[int, int]:
        """Returns the range of bytes in the lines that holds requests [first, last)."""
        return self._pair(first)[0], self._pair(last)[0]

    def _pair(self, ordinal: int) -> tuple[int, int]:
        at = ordinal * PAIR.size
        line, key = PAIR.unpack(self._read(Content.INDEX, at, at + PAIR.size))
        return line, key

    def damaged(self, total: int, *, lines: bool, groups: bool) -> str | None:
        """Returns the name of a blob that is missing or not whole; None where all are whole.

        - `total`: the number of requests in the batch.
        - `lines`, `groups`: whether the spool must have these.
        """
        index_size = (total + 1) * PAIR.size
        try:
            packed = self._header.packed
            line_end, key_end = self._pair(total)
        except DamagedBlob:
            return self._files.index
        if packed:
            expected = Header((index_size, key_end, total if groups else 0, line_end if lines else 0))
            whole = self._header == expected and self._size(self._files.index) == expected.end
            return None if whole else self._files.index
        sizes = {self._files.index: HEADER_BYTES + index_size, self._files.keys: key_end}
        if lines:
            sizes[self._files.requests] = line_end
        if groups:
            sizes[self._files.groups] = total
        return next((name for name, size in sizes.items() if self._size(name) != size), None)

    def cuts(self, total: int, *, max_requests: int, max_bytes: int) -> Iterator[tuple[int, int]]:
        """Cuts [0, total) into consecutive ranges of ordinals, each within both limits."""
        first, first_byte, start = 0, 0, 0
        for ordinal, end in enumerate(self._line_ends()):
            if ordinal > first and (ordinal - first >= max_requests or end - first_byte > max_bytes):
                yield first, ordinal
                first, first_byte = ordinal, start
            start = end
        yield first, total

    def groups(self) -> Iterator[tuple[int, int]] | None:
        """Returns the group and the size in bytes of each request, in order; None where all may share a job."""
        if self._header.packed:
            found = self._read(Content.GROUPS, 0, self._header.sizes[Content.GROUPS]) or None
        else:
            found = self._spool.find(self._files.groups)
        if found is None:
            return None
        return zip(found, self.sizes(), strict=True)

    def sizes(self) -> Iterator[int]:
        """Yields the size in bytes of the line of each request, in order."""
        return (end - start for start, end in pairwise(chain([0], self._line_ends())))

    def _line_ends(self) -> Iterator[int]:
        with self._opened(Content.INDEX) as (file, start, end):
            at = start + PAIR.size
            file.seek(at)
            while block := file.read(PAIR.size * 4096 if end is None else min(PAIR.size * 4096, end - at)):
                if len(block) % PAIR.size:
                    raise DamagedBlob(f"{self._files.index} ends within an entry; restore it from a backup")
                for line_end, _ in PAIR.iter_unpack(block):
                    yield line_end
                at += len(block)

    @contextmanager
    def open_lines(self, first: int, last: int) -> Iterator[tuple[IO[bytes], int, int]]:
        """Opens the lines of requests [first, last): yields a seekable file, and where in it they start and end."""
        start, end = self.byte_range(first, last)
        with self._opened(Content.LINES) as (file, base, _):
            yield file, base + start, base + end

    def copy_lines(self, runs: Iterable[tuple[int, int]], sink: IO[bytes]) -> None:
        """Writes the provider's lines of ranges of ordinals [first, last) to `sink`."""
        for first, last in runs:
            start, end = self.byte_range(first, last)
            place = self._place(Content.LINES)
            if place.end is not None and place.end <= len(self._head):
                sink.write(self._read(Content.LINES, start, end))
            else:
                self._spool.copy(place.name, place.start + start, place.start + end, sink)

    def keys(self, ordinals: Iterable[int]) -> dict[int, KeyLine]:
        """Returns the key lines of these ordinals. Ordinals that are close together share a ranged read."""
        found: dict[int, KeyLine] = {}
        for group in _groups(sorted(set(ordinals))):
            first, last = group[0], group[-1] + 1
            offsets = array("Q", self._read(Content.INDEX, first * PAIR.size, (last + 1) * PAIR.size))
            if sys.byteorder == "big":
                offsets.byteswap()
            base = offsets[1]
            block = self._read(Content.KEYS, base, offsets[-1])
            with self._decoding():
                if last - first == len(group):
                    found.update(zip(group, key_decoder.decode_lines(block), strict=True))
                    continue
                for ordinal in group:
                    at = 2 * (ordinal - first) + 1
                    found[ordinal] = decode_key(block[offsets[at] - base : offsets[at + 2] - base])
        return found

    def all_keys(self) -> Iterator[KeyLine]:
        """Yields the key lines of all requests, in order."""
        if self._header.packed:
            lines = iter(self._read(Content.KEYS, 0, self._header.sizes[Content.KEYS]).splitlines())
        else:
            lines = self._spool.lines(self._files.keys)
        with self._decoding():
            yield from map(decode_key, lines)

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        try:
            yield
        except (msgspec.DecodeError, ValueError) as error:
            name = self._place(Content.KEYS).name
            raise DamagedBlob(f"{name} is damaged: {error}; restore it from a backup") from error

    # ---- places

    @cached_property
    def _head(self) -> bytes:
        return self._spool.head(self._files.index, _HEAD_BYTES)

    @cached_property
    def _header(self) -> Header:
        return Header.read(self._head, self._files.index)

    def _place(self, content: Content) -> _Place:
        if self._header.packed:
            return _Place(self._files.index, *self._header.span(content))
        if content is Content.INDEX:
            return _Place(self._files.index, HEADER_BYTES)
        names = {
            Content.KEYS: self._files.keys,
            Content.GROUPS: self._files.groups,
            Content.LINES: self._files.requests,
        }
        return _Place(names[content])

    def _read(self, content: Content, start: int, end: int) -> bytes:
        """Returns the bytes [start, end) of a content, all of them."""
        name, base, limit = self._place(content)
        if end < start or (limit is not None and base + end > limit):
            raise DamagedBlob(f"{name} is damaged: bytes {start} to {end} are not in it; restore it from a backup")
        if name == self._files.index and base + end <= len(self._head):
            return self._head[base + start : base + end]
        return self._spool.read(name, base + start, base + end)

    @contextmanager
    def _opened(self, content: Content) -> Iterator[tuple[IO[bytes], int, int | None]]:
        """Opens the blob of a content, seekable; yields where in it the content starts and ends."""
        name, start, end = self._place(content)
        if end is not None and end <= len(self._head):
            yield io.BytesIO(self._head), start, end
            return
        with self._spool.open(name) as file:
            yield file, start, end

    def _size(self, name: str) -> int | None:
        if name == self._files.index and len(self._head) < _HEAD_BYTES:
            return len(self._head)
        return self._spool.size(name)


def _groups(ordinals: list[int]) -> Iterator[list[int]]:
    group: list[int] = []
    for ordinal in ordinals:
        if group and (ordinal - group[-1] > _GAP or ordinal - group[0] >= _SPAN):
            yield group
            group = []
        group.append(ordinal)
    if group:
        yield group
