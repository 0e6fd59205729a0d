"""Reads the duration of a video from its header, or estimates it from its length."""

from __future__ import annotations

import struct

from lowtide.shaping.tokens.encoded import Encoded

_BYTES_A_SECOND = 250_000
"""Of a video whose header says nothing: 2 Mbit/s."""
_FEWEST_BYTES_A_SECOND = 1000
_MOST_BOXES = 256
_LARGE, _TO_THE_END = 1, 0
"""Sizes of a box that say that the size comes later, and that the box goes on to the end of the file."""


def video_seconds(file: Encoded) -> float:
    """Returns the duration of a video in seconds: an MP4 or QuickTime file; by its length for all else.

    A header may say anything; the duration is never longer than that of a video at 1 kB a second.
    """
    try:
        seconds = _seconds(file)
    except (struct.error, ZeroDivisionError):
        seconds = None
    if seconds is None:
        return file.size / _BYTES_A_SECOND
    return min(seconds, file.size / _FEWEST_BYTES_A_SECOND)


def _seconds(file: Encoded) -> float | None:
    if file.read(4, 4) not in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return None
    movie = _box(file, b"moov", 0, file.size)
    header = _box(file, b"mvhd", *movie) if movie else None
    if header is None:
        return None
    start = header[0]
    if file.read(start, 1) == b"\x01":
        scale, duration = struct.unpack(">IQ", file.read(start + 20, 12))
    else:
        scale, duration = struct.unpack(">II", file.read(start + 12, 8))
    # A file in fragments says 0.
    return duration / scale if duration else None


def _box(file: Encoded, name: bytes, at: int, end: int) -> tuple[int, int] | None:
    """Returns the range of bytes of the content of the first box of this name in [at, end)."""
    for _ in range(_MOST_BOXES):
        if at + 8 > end:
            return None
        size, kind = struct.unpack(">I4s", file.read(at, 8))
        head = 8
        if size == _LARGE:
            [size] = struct.unpack(">Q", file.read(at + 8, 8))
            head = 16
        last = end if size == _TO_THE_END else at + max(size, head)
        if kind == name:
            return at + head, min(last, end)
        at = last
    return None
