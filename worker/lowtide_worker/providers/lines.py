"""JSON text on one line."""

from __future__ import annotations

_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


def without_line_ends(json: bytes) -> bytes:
    """Returns JSON text without line ends. They can only be white space between its parts."""
    return json.translate(_LINE_ENDS)
