"""Finds the keys of a batch that may come twice, in flat memory: 4 bytes a request of a large batch."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

_BUCKET_BITS = 12
"""Bits of a key's hash that choose its bucket. With the 32 bits of a mark, 44 bits distinguish keys."""
_BUCKETS = (1 << _BUCKET_BITS) - 1
_MARK = (1 << 32) - 1
_BITS = _MARK << _BUCKET_BITS | _BUCKETS


class KeyMarks:
    """The hashes of the keys so far: whole ones of the latest keys, and marks of 32 bits, in buckets, of those before.

    A small batch never has buckets, of which there are thousands.
    """

    def __init__(self) -> None:
        self.hashes = array("q")
        """The hashes of the latest keys, as `hash` gives them. The writer appends to it."""
        self._buckets: list[array[int]] = []

    def compact(self) -> None:
        """Moves the hashes to the buckets."""
        if not self._buckets:
            self._buckets = [array("I") for _ in range(_BUCKETS + 1)]
        buckets = self._buckets
        for number in self.hashes:
            buckets[number & _BUCKETS].append(number >> _BUCKET_BITS & _MARK)
        del self.hashes[:]

    def repeated(self) -> set[int]:
        """Returns the `bits_of` keys that come twice, as far as their marks can show. Equal marks are only a hint."""
        if not self._buckets:
            return {number & _BITS for number in _repeated(self.hashes)}
        self.compact()
        return {mark << _BUCKET_BITS | at for at, marks in enumerate(self._buckets) for mark in _repeated(marks)}


def bits_of(key: str) -> int:
    """Returns the bits of a key's hash by which keys are distinguished."""
    return hash(key) & _BITS


def _repeated(marks: array[int]) -> Iterator[int]:
    if len(set(marks)) == len(marks):
        return
    seen: set[int] = set()
    for mark in marks:
        if mark in seen:
            yield mark
        seen.add(mark)
