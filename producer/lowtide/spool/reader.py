"""Reads the accepted requests of a batch by ordinal."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import IO

from lowtide.protocol import BatchFiles
from lowtide.spool.blobs import Spool
from lowtide.spool.format import ENTRY, KeyLine, decode_key, key_decoder

_GAP = 256
"""Requests further apart than this are read separately, without those between them."""
_SPAN = 16_384
"""Most requests in one ranged read of keys."""
_BISECTED = 1024
"""Most entries of the index that a search reads at once rather than halves again."""


class RequestReader:
    """Reads the accepted requests of a batch by ordinal."""

    def __init__(self, spool: Spool, batch_id: str) -> None:
        self._spool = spool
        self._files = BatchFiles(batch_id)

    def sums(self, ordinal: int) -> tuple[int, int, int]:
        """Returns the sums over all requests before `ordinal`: bytes of lines, bytes of key lines, estimated tokens.

        With the batch's total as `ordinal` they are those of the whole batch.
        """
        at = ordinal * ENTRY.size
        line, key, tokens = ENTRY.unpack(self._spool.read(self._files.index, at, at + ENTRY.size))
        return line, key, tokens

    def tokens(self, first: int, last: int) -> int:
        """Returns the estimated input tokens of requests [first, last)."""
        return self.sums(last)[2] - self.sums(first)[2]

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
        block = self._spool.read(self._files.index, (low + 1) * ENTRY.size, (high + 1) * ENTRY.size)
        for line, _, tokens in ENTRY.iter_unpack(block):
            if line > most[0] or tokens > most[1]:
                break
            low += 1
        return low

    def byte_range(self, first: int, last: int) -> tuple[int, int]:
        """Returns the range of bytes in the file of lines that holds requests [first, last)."""
        return self.sums(first)[0], self.sums(last)[0]

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
        if not self._spool.exists(self._files.groups):
            return None
        sizes = ((end - start, last - first) for (start, first), (end, last) in pairwise(chain([(0, 0)], self._ends())))
        groups = zip(self._spool.read(self._files.groups), sizes, strict=True)
        return ((group, size, tokens) for group, (size, tokens) in groups)

    def _ends(self) -> Iterator[tuple[int, int]]:
        with self._spool.open(self._files.index) as file:
            file.seek(ENTRY.size)
            while block := file.read(ENTRY.size * 4096):
                for line_end, _, tokens in ENTRY.iter_unpack(block):
                    yield line_end, tokens

    def copy_lines(self, runs: Iterable[tuple[int, int]], sink: IO[bytes]) -> None:
        """Writes the provider's lines of ranges of ordinals [first, last) to `sink`."""
        for first, last in runs:
            self._spool.copy(self._files.requests, *self.byte_range(first, last), sink)

    def keys(self, ordinals: Iterable[int]) -> dict[int, KeyLine]:
        """Returns the key lines of these ordinals. Ordinals that are close together share a ranged read."""
        found: dict[int, KeyLine] = {}
        for group in _groups(sorted(set(ordinals))):
            first, last = group[0], group[-1] + 1
            raw = self._spool.read(self._files.index, first * ENTRY.size, (last + 1) * ENTRY.size)
            offsets = array("Q", raw)
            if sys.byteorder == "big":
                offsets.byteswap()
            base = offsets[1]
            block = self._spool.read(self._files.keys, base, offsets[-2])
            if last - first == len(group):
                found.update(zip(group, key_decoder.decode_lines(block), strict=True))
                continue
            for ordinal in group:
                at = 3 * (ordinal - first) + 1
                found[ordinal] = decode_key(block[offsets[at] - base : offsets[at + 3] - base])
        return found


def _groups(ordinals: list[int]) -> Iterator[list[int]]:
    group: list[int] = []
    for ordinal in ordinals:
        if group and (ordinal - group[-1] > _GAP or ordinal - group[0] >= _SPAN):
            yield group
            group = []
        group.append(ordinal)
    if group:
        yield group
