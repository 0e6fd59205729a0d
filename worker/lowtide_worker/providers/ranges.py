"""Whole lines out of ranges of bytes."""

from __future__ import annotations

from collections.abc import Callable

_MORE = 1 << 16
"""Bytes to read on for the end of a line, twice as many each time."""


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
