"""Output that is read by byte ranges at the provider: its parts count as one file, which is cut into even segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from lowtide_worker.providers import Part

_decode = msgspec.json.Decoder(list[Part]).decode


def encoded_parts(parts: Sequence[Part]) -> str:
    """Returns the parts as JSON, for a job's hash."""
    return msgspec.json.encode(parts).decode()


def decoded_parts(encoded: str) -> list[Part]:
    """Returns the parts that `encoded_parts` encoded."""
    return _decode(encoded)


def even_ends(parts: Sequence[Part], size: int) -> list[int]:
    """Returns the byte offsets at which segments of about `size` bytes end, counted over all parts together.

    A segment never spans two parts.
    """
    ends: list[int] = []
    base = 0
    for part in parts:
        ends += [base + end for end in range(size, part.size, size)]
        base += part.size
        if part.size:
            ends.append(base)
    return ends


def part_ranges(encoded: str, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Yields the name of each part that has some of the bytes [start, end), and the first and last offset within it.

    `encoded` are the parts in the form of `encoded_parts`. `start` and `end` count over all parts together.
    """
    base = 0
    for part in _decode(encoded):
        first, last = max(start - base, 0), min(end - base, part.size)
        if first < last:
            yield part.name, first, last
        base += part.size
