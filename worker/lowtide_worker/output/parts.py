"""Output that is read in place: several parts counted as one file, cut evenly, read by whole lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lowtide.protocol.records import Part


def even_ends(parts: Sequence[Part], size: int) -> list[int]:
    """The offsets at which segments of about `size` bytes end, over all parts together. No segment spans two parts."""
    ends: list[int] = []
    base = 0
    for _, length in parts:
        ends += [base + end for end in range(size, length, size)]
        base += length
        if length:
            ends.append(base)
    return ends


def part_ranges(parts: Sequence[Part], start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """The ranges that hold the bytes [start, end) of all parts together: the part's name, and the range within it."""
    base = 0
    for name, length in parts:
        first, last = max(start - base, 0), min(end - base, length)
        if first < last:
            yield name, first, last
        base += length
