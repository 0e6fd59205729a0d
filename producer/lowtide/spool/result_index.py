"""The index of a job's results: for each of its ordinals, in order, the segment and the offset of the stored result.

The store holds it while results come. When the job is settled, that of a large one becomes a blob.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

KEPT_ENTRIES = 1024
"""Most entries of an index that stays in the store, so that a small batch has no further blob."""
ENTRY_BYTES = 8
"""Bytes of an entry. It is 0 where the request has no result from the job."""
_OFFSET_BITS = 32
_OFFSET = (1 << _OFFSET_BITS) - 1


class Stored(NamedTuple):
    """The place of a stored result."""

    segment: int
    """The segment of its job."""
    offset: int
    """The offset of its line in the file of the segment, in bytes."""


def line_ends(lines: bytes) -> list[int]:
    """Returns the offset behind each newline. It is several times as fast as counting the newlines."""
    ends: list[int] = []
    find, at = lines.find, 0
    while at := find(b"\n", at) + 1:
        ends.append(at)
    return ends


def decode_entry(data: bytes) -> Stored | None:
    """Returns the place that an entry names; None where it names none."""
    entry = int.from_bytes(data, "little")
    return Stored((entry >> _OFFSET_BITS) - 1, entry & _OFFSET) if entry else None


class SegmentPlaces:
    """Collects where the results of one segment begin in their file, for the index of their job."""

    def __init__(self, segment: int) -> None:
        self._ordinals = array("I")
        self._entries = array("Q")
        self._end = segment + 1 << _OFFSET_BITS
        """The entry of a line that begins at the end of the file."""

    def add(self, ordinals: Sequence[int], ends: Sequence[int]) -> None:
        """Adds the next lines of the file.

        - `ordinals`: those of their requests.
        - `ends`: the offset behind each of their newlines, by `line_ends`, in bytes from the first of these lines.
        """
        self._ordinals.extend(ordinals)
        start = self._end
        self._entries.append(start)
        self._entries.extend([start + end for end in ends])
        self._end = self._entries.pop()

    def runs(self) -> Iterator[tuple[int, bytes]]:
        """Yields the entries of each run of consecutive ordinals, with the first of them."""
        first = self._ordinals[0]
        if self._ordinals.tolist() == list(range(first, first + len(self._ordinals))):
            yield first, _encoded(self._entries)
            return
        pairs = sorted(zip(self._ordinals, self._entries, strict=True))
        # Within a run, an ordinal and its position differ by the same number.
        for _, run in groupby(enumerate(pairs), lambda numbered: numbered[1][0] - numbered[0]):
            together = [pair for _, pair in run]
            yield together[0][0], _encoded(array("Q", [entry for _, entry in together]))


def _encoded(entries: array[int]) -> bytes:
    if sys.byteorder == "big":
        entries.byteswap()
    return entries.tobytes()
