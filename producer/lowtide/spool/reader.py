"""Reads the accepted requests of a batch by ordinal: see `lowtide.spool.format`."""

from __future__ import annotations

import io
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import chain, islice, pairwise
from typing import IO, NamedTuple

import msgspec

from lowtide.protocol import BatchFiles
from lowtide.spool.blobs import DamagedBlob, Spool
from lowtide.spool.format import HEADER_BYTES, Content, Header, KeyLine, decode_key, key_decoder

_HEAD_BYTES = 1 << 17
"""Bytes of the first read, which has all contents of most small batches."""
_GAP = 256
"""Requests further apart than this are read separately, without those between them."""
_SPAN = 16_384
"""Most requests in one ranged read of keys."""
_BISECTED = 1024
"""Most entries of the index that a search reads at once rather than halves again."""


class _Place(NamedTuple):
    """The place of a content in the spool: bytes of a blob, up to the blob's end where `end` is None."""

    name: str
    start: int = 0
    end: int | None = None


class RequestReader:
    """Reads the accepted requests of a batch by ordinal. It is cheap to make, and reads when it first must.

    - `packed`: returns the one blob of a batch that has no file of its own, see `lowtide.store.requests`. None: the
      spool has the batch's files.

    Its methods raise `DamagedBlob` for a blob that is missing, or not what its index says.
    """

    def __init__(self, spool: Spool, batch_id: str, packed: Callable[[], bytes] | None = None) -> None:
        self._spool = spool
        self._files = BatchFiles(batch_id)
        self._packed = packed

    def sums(self, ordinal: int) -> tuple[int, int, int]:
        """Returns the sums over all requests before `ordinal`: bytes of lines, bytes of key lines, estimated tokens.

        With the batch's total as `ordinal` they are those of the whole batch.
        """
        line, key, tokens, *_ = self._entry_of(ordinal)
        return line, key, tokens

    def _entry_of(self, ordinal: int) -> tuple[int, ...]:
        entry = self._header.entry
        at = ordinal * entry.size
        return entry.unpack(self._read(Content.INDEX, at, at + entry.size))

    def tokens(self, first: int, last: int) -> int:
        """Returns the estimated input tokens of requests [first, last)."""
        return self.sums(last)[2] - self.sums(first)[2]

    def output(self, first: int, last: int) -> int | None:
        """Returns the most output tokens of requests [first, last); None where the index does not count them."""
        return self._entry_of(last)[3] - self._entry_of(first)[3] if self._header.wide else None

    def outputs(self, first: int, last: int) -> Iterator[int] | None:
        """Returns the most output tokens of each request of [first, last); None where they are not counted."""
        if not self._header.wide:
            return None
        ends = (entry[3] for entry in islice(self._entries(first), last - first))
        return (end - start for start, end in pairwise(chain([self._entry_of(first)[3]], ends)))

    def fitting(self, first: int, last: int, *, max_bytes: int, max_tokens: int | None) -> int:
        """Returns the ordinal behind the longest run of requests from `first` on that is within both limits.

        - `last`: the ordinal at which the run ends at the latest.
        - `max_bytes`: the most bytes of lines.
        - `max_tokens`: the most estimated input tokens; None: any number.

        It is `first` where not even one request is within the limits. A bisection: it reads a few entries of the index,
        however many requests there are.
        """
        line, _, tokens = self.sums(first)
        most = line + max_bytes, sys.maxsize if max_tokens is None else tokens + max_tokens
        low, high = first, last  # the run ends in [low, high]
        while high - low > _BISECTED:
            middle = (low + high) // 2
            line, _, tokens = self.sums(middle)
            low, high = (middle, high) if line <= most[0] and tokens <= most[1] else (low, middle - 1)
        entry = self._header.entry
        block = self._read(Content.INDEX, (low + 1) * entry.size, (high + 1) * entry.size)
        for line, _, tokens, *_ in entry.iter_unpack(block):
            if line > most[0] or tokens > most[1]:
                break
            low += 1
        return low

    def byte_range(self, first: int, last: int) -> tuple[int, int]:
        """Returns the range of bytes in the lines that holds requests [first, last)."""
        return self.sums(first)[0], self.sums(last)[0]

    def damaged(self, total: int, *, lines: bool, groups: bool) -> str | None:
        """Returns the name of a blob that is missing or not whole; None where all are whole.

        - `total`: the number of requests in the batch.
        - `lines`, `groups`: whether the spool must have these.
        """
        try:
            packed = self._header.packed
            index_size = (total + 1) * self._header.entry.size
            line_end, key_end, _ = self.sums(total)
        except DamagedBlob:
            return self._files.index
        if packed:
            # Of what is not asked for, the blob may have all or nothing.
            group_size = total if groups else self._header.sizes[Content.GROUPS]
            line_size = line_end if lines else self._header.sizes[Content.LINES]
            expected = Header((index_size, key_end, group_size, line_size), self._header.wide)
            whole = self._header == expected and self._size(self._files.index) == expected.end
            return None if whole else self._files.index
        sizes = {self._files.index: HEADER_BYTES + index_size, self._files.keys: key_end}
        if lines:
            sizes[self._files.requests] = line_end
        if groups:
            sizes[self._files.groups] = total
        return next((name for name, size in sizes.items() if self._size(name) != size), None)

    def cuts(
        self, total: int, *, max_requests: int, max_bytes: int, max_tokens: int | None = None
    ) -> Iterator[tuple[int, int]]:
        """Cuts [0, total) into consecutive ranges of ordinals, each within all limits or of one request."""
        most = sys.maxsize if max_tokens is None else max_tokens
        first, first_byte, first_token, start, before = 0, 0, 0, 0, 0
        for ordinal, (end, tokens) in enumerate(self._ends()):
            if ordinal > first and (
                ordinal - first >= max_requests or end - first_byte > max_bytes or tokens - first_token > most
            ):
                yield first, ordinal
                first, first_byte, first_token = ordinal, start, before
            start, before = end, tokens
        yield first, total

    def groups(self) -> Iterator[tuple[int, int, int]] | None:
        """Returns the group, the size in bytes and the estimated tokens of each request, in order.

        None where all requests may share a job.
        """
        if self._header.packed:
            found = self._read(Content.GROUPS, 0, self._header.sizes[Content.GROUPS]) or None
        else:
            found = self._spool.find(self._files.groups)
        if found is None:
            return None
        groups = zip(found, self.sizes(), strict=True)
        return ((group, size, tokens) for group, (size, tokens) in groups)

    def sizes(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, int]]:
        """Returns the size in bytes and the estimated tokens of each request, in order.

        Of requests [first, last); None: to the end of the batch.
        """
        line, _, tokens = self.sums(first) if first else (0, 0, 0)
        count = None if last is None else last - first
        pairs = pairwise(chain([(line, tokens)], islice(self._ends(first), count)))
        return ((end - start, last - first) for (start, first), (end, last) in pairs)

    def _ends(self, first: int = 0) -> Iterator[tuple[int, int]]:
        return ((entry[0], entry[2]) for entry in self._entries(first))

    def _entries(self, first: int) -> Iterator[tuple[int, ...]]:
        """The entries at which request `first` and those after it end."""
        entry = self._header.entry
        with self._opened(Content.INDEX) as (file, start, end):
            at = start + (first + 1) * entry.size
            file.seek(at)
            while block := file.read(entry.size * 4096 if end is None else min(entry.size * 4096, end - at)):
                if len(block) % entry.size:
                    raise DamagedBlob(f"{self._files.index} ends within an entry; restore it from a backup")
                yield from entry.iter_unpack(block)
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
            size = self._header.entry.size
            offsets, width = array("Q", self._read(Content.INDEX, first * size, (last + 1) * size)), size // 8
            if sys.byteorder == "big":
                offsets.byteswap()
            base = offsets[1]
            block = self._read(Content.KEYS, base, offsets[1 - width])
            with self._decoding():
                if last - first == len(group):
                    found.update(zip(group, key_decoder.decode_lines(block), strict=True))
                    continue
                for ordinal in group:
                    at = width * (ordinal - first) + 1
                    found[ordinal] = decode_key(block[offsets[at] - base : offsets[at + width] - base])
        return found

    @property
    def is_packed(self) -> bool:
        """Whether all contents are in one blob, which is small."""
        return self._header.packed

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
        return self._packed() if self._packed else self._spool.head(self._files.index, _HEAD_BYTES)

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
        if name == self._files.index and (self._packed or len(self._head) < _HEAD_BYTES):
            return len(self._head)
        return self._spool.readable_size(name)


def _groups(ordinals: list[int]) -> Iterator[list[int]]:
    group: list[int] = []
    for ordinal in ordinals:
        if group and (ordinal - group[-1] > _GAP or ordinal - group[0] >= _SPAN):
            yield group
            group = []
        group.append(ordinal)
    if group:
        yield group
