"""Estimates the tokens of text by its length and its characters.

"A token is equivalent to about 4 characters", says Google of its models; other scripts, digits and signs need more. The
rates are approximate: the real tokenizer is not at hand, and the answers show how far off an estimate was.

Source: https://ai.google.dev/gemini-api/docs/tokens
"""

from __future__ import annotations

SHORT_BYTES = 256
"""ASCII text up to this length is counted by its length alone."""

_PER_TOKEN = 100
_LETTER = 22
_CLASSES = (
    # (hundredths of a token for each of these bytes, the bytes). A character of UTF-8 counts by its first byte.
    (0, bytes(range(0x80, 0xC0))),
    (100, b"0123456789"),
    (75, bytes(range(0x80))),
    (70, bytes(range(0xE3, 0xEA))),  # Japanese, Chinese
    (65, bytes(range(0xEA, 0xEE))),  # Korean
    (33, bytes(range(0xD0, 0xD4))),  # Cyrillic
    (42, bytes(range(0xD6, 0xDC))),  # Hebrew, Arabic
    (45, b"\xe0"),  # the scripts of India, Thai
    (40, bytes(range(0xC0, 0xD0))),  # Latin with accents, Greek
    (80, b"\xe1"),  # Georgian, Ethiopic, Khmer
    (100, bytes(range(0xC0, 0xF0))),  # signs and all other scripts
    (150, bytes(range(0xF0, 0x100))),  # emoji
)
_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \n\t\r"


def text_tokens(text: bytes) -> int:
    """Returns the estimated tokens of a text in UTF-8."""
    length = len(text)
    if length <= SHORT_BYTES and text.isascii():
        return (length + 3) >> 2
    rest = text.translate(None, _LETTERS)
    hundredths = _LETTER * (length - len(rest))
    for each, members in _CLASSES:
        if not rest:
            break
        length, rest = len(rest), rest.translate(None, members)
        hundredths += each * (length - len(rest))
    return -(-hundredths // _PER_TOKEN)
