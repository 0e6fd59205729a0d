"""The reader of whole lines from a source that is read by byte ranges."""

from __future__ import annotations

from collections.abc import Callable

_MORE = 1 << 16
"""Bytes of the first read beyond the range, in search of the last line's end. Each further read is twice as long."""


def whole_lines(read: Callable[[int, int], bytes], start: int, end: int) -> bytes:
    """Returns the lines that begin within the bytes [start, end), the last one up to its end.

    So of several adjacent ranges, exactly one contains each line.

    - `read`: returns the bytes [first, last) of the file: fewer at the file's end, and none beyond it.
    """
    at = max(start - 1, 0)
    block = read(at, end)
    if start:
        # The byte before `start` shows whether a line begins there.
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
