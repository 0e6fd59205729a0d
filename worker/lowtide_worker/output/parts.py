"""Output that is read where it lies: several parts counted as one file, cut evenly, read line by whole line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from lowtide_worker.providers import Part

_decode = msgspec.json.Decoder(list[Part]).decode


def encoded_parts(parts: Sequence[Part]) -> str:
    """Parts as a job's hash keeps them."""
    return msgspec.json.encode(parts).decode()


def decoded_parts(encoded: str) -> list[Part]:
    """The same, read back."""
    return _decode(encoded)


def even_ends(parts: Sequence[Part], size: int) -> list[int]:
    """Where segments of about `size` bytes end, over all parts together. None spans two parts."""
    ends: list[int] = []
    base = 0
    for part in parts:
        ends += [base + end for end in range(size, part.size, size)]
        base += part.size
        if part.size:
            ends.append(base)
    return ends


def part_ranges(encoded: str, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Where the bytes [start, end) of all parts together lie: part after part, each with the range within it."""
    base = 0
    for part in _decode(encoded):
        first, last = max(start - base, 0), min(end - base, part.size)
        if first < last:
            yield part.name, first, last
        base += part.size
