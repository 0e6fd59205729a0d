"""Reads single ranges of bytes of a file that is in a request as base64, without decoding all of it."""

from __future__ import annotations

import base64
import binascii

_STANDARD = bytes.maketrans(b"-_", b"+/")


class Encoded:
    """A file in base64, in either alphabet. What cannot be decoded reads as nothing."""

    def __init__(self, text: memoryview) -> None:
        self._text = text
        padding = bytes(text[-2:]).count(b"=")
        self.size = max(0, len(text) * 3 // 4 - padding)
        """Its length in bytes."""

    def read(self, at: int, count: int) -> bytes:
        """Returns `count` bytes from offset `at` on, or fewer at the end."""
        start = at // 3 * 4
        text = bytes(self._text[start : -(-(at + count) // 3) * 4]).translate(_STANDARD)
        try:
            data = base64.b64decode(text + b"=" * (-len(text) % 4))
        except binascii.Error:
            return b""
        skipped = at - start // 4 * 3
        return data[skipped : skipped + count]
