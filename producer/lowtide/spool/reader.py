"""Reads the accepted requests of a batch by ordinal."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import IO

from lowtide.protocol import BatchFiles
from lowtide.spool.blobs import Spool
from lowtide.spool.format import PAIR, KeyLine, decode_key, key_decoder

_GAP = 256
"""Requests further apart than this are read separately, without those between them."""
_SPAN = 16_384
"""Most requests in one ranged read of keys."""


class RequestReader:
    """Reads the accepted requests of a batch by ordinal."""

    def __init__(self, spool: Spool, batch_id: str) -> None:
        self._spool = spool
        self._files = BatchFiles(batch_id)

    def byte_range(self, first: int, last: int) -> tuple[int, int]:
        """Returns the range of bytes in the file of lines that holds requests [first, last)."""
        return self._pair(first)[0], self._pair(last)[0]

    def ends(self, total: int) -> tuple[int, int]:
        """Returns the sizes in bytes of the lines and of the key lines of a batch of `total` requests."""
        return self._pair(total)

    def _pair(self, ordinal: int) -> tuple[int, int]:
        at = ordinal * PAIR.size
        line, key = PAIR.unpack(self._spool.read(self._files.index, at, at + PAIR.size))
        return line, key

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
        if not self._spool.exists(self._files.groups):
            return None
        return zip(self._spool.read(self._files.groups), self.sizes(), strict=True)

    def sizes(self) -> Iterator[int]:
        """Yields the size in bytes of the line of each request, in order."""
        return (end - start for start, end in pairwise(chain([0], self._line_ends())))

    def _line_ends(self) -> Iterator[int]:
        with self._spool.open(self._files.index) as file:
            file.seek(PAIR.size)
            while block := file.read(PAIR.size * 4096):
                for line_end, _ in PAIR.iter_unpack(block):
                    yield line_end

    def copy_lines(self, runs: Iterable[tuple[int, int]], sink: IO[bytes]) -> None:
        """Writes the provider's lines of ranges of ordinals [first, last) to `sink`."""
        for first, last in runs:
            self._spool.copy(self._files.requests, *self.byte_range(first, last), sink)

    def keys(self, ordinals: Iterable[int]) -> dict[int, KeyLine]:
        """Returns the key lines of these ordinals. Ordinals that are close together share a ranged read."""
        found: dict[int, KeyLine] = {}
        for group in _groups(sorted(set(ordinals))):
            first, last = group[0], group[-1] + 1
            raw = self._spool.read(self._files.index, first * PAIR.size, (last + 1) * PAIR.size)
            offsets = array("Q", raw)
            if sys.byteorder == "big":
                offsets.byteswap()
            base = offsets[1]
            block = self._spool.read(self._files.keys, base, offsets[-1])
            if last - first == len(group):
                found.update(zip(group, key_decoder.decode_lines(block), strict=True))
                continue
            for ordinal in group:
                at = 2 * (ordinal - first) + 1
                found[ordinal] = decode_key(block[offsets[at] - base : offsets[at + 2] - base])
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
