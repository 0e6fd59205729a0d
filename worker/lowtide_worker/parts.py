"""Output that is read where it lies: several parts counted as one file, cut evenly, read line by whole line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from lowtide_worker.providers import Part

_MORE = 1 << 16
"""Bytes to read on for the end of a line, twice as many each time."""

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


def pieces(encoded: str, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Where the bytes [start, end) of all parts together lie: part after part, each with the range within it."""
    base = 0
    for part in _decode(encoded):
        first, last = max(start - base, 0), min(end - base, part.size)
        if first < last:
            yield part.name, first, last
        base += part.size


def whole_lines(read: Callable[[int, int], bytes], start: int, end: int) -> bytes:
    """The lines that begin in [start, end) of something that `read` reads by ranges, the last one to its end.

    So each line is in exactly one of several ranges that lie side by side. `read` returns less at the end of its
    file, and nothing beyond it.
    """
    at = max(start - 1, 0)
    block = read(at, end)
    if start:
        # The byte before tells whether a line begins at `start`.
        first = block.find(b"\n") + 1
        if not 0 < first < end - at:
            return b""
        block = block[first:]
    at, more = end, _MORE
    while block and not block.endswith(b"\n"):
        further = read(at, at + more)
        if not further:
            break
        newline = further.find(b"\n") + 1
        block += further[:newline] if newline else further
        at, more = at + more, more * 2
    return block
