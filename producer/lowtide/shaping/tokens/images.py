"""Reads the size of an image from its header."""

from __future__ import annotations

import struct

from lowtide.shaping.tokens.encoded import Encoded

_HEAD_BYTES = 32
_MOST_SEGMENTS = 256
"""Segments of a JPEG that are passed on the way to its size."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the segments of a JPEG that have its size."""


def image_size(file: Encoded) -> tuple[int, int] | None:
    """Returns width and height in pixels of a PNG, JPEG, GIF or WebP; None for all else and for damaged files."""
    head = file.read(0, _HEAD_BYTES)
    try:
        size = _size(file, head)
    except (struct.error, IndexError):
        return None
    return size if size and min(size) > 0 else None


def _size(file: Encoded, head: bytes) -> tuple[int, int] | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return struct.unpack_from(">II", head, 16)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return struct.unpack_from("<HH", head, 6)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _size_of_webp(head)
    if head.startswith(b"\xff\xd8"):
        return _size_of_jpeg(file)
    return None


def _size_of_webp(head: bytes) -> tuple[int, int] | None:
    match head[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            [bits] = struct.unpack_from("<I", head, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return None


def _size_of_jpeg(file: Encoded) -> tuple[int, int] | None:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        segment = file.read(at, 9)
        if segment[0] != 0xFF:
            return None
        if segment[1] == 0xFF:  # a fill byte
            at += 1
            continue
        length, _, height, width = struct.unpack_from(">HBHH", segment, 2)
        if segment[1] in _FRAMES:
            return width, height
        at += 2 + max(length, 2)
    return None
