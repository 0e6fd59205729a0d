"""Output that is read by byte ranges at the provider: its parts count as one file, which is cut into even segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lowtide.protocol.file_parts import Part


def even_ends(parts: Sequence[Part], size: int) -> list[int]:
    """Returns the byte offsets at which segments of about `size` bytes end, counted over all parts together.

    A segment never spans two parts.
    """
    ends: list[int] = []
    base = 0
    for _, length, _ in parts:
        ends += [base + end for end in range(size, length, size)]
        base += length
        if length:
            ends.append(base)
    return ends


def part_ranges(parts: Sequence[Part], start: int, end: int) -> Iterator[tuple[Part, int, int]]:
    """Yields each part that has some of the bytes [start, end), and the first and last offset within it.

    `start` and `end` count over all parts together.
    """
    base = 0
    for part in parts:
        first, last = max(start - base, 0), min(end - base, part.size)
        if first < last:
            yield part, first, last
        base += part.size
