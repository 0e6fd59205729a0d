"""Text for people: text from outside made safe for a terminal, a log or a page, and lengths of time in words."""

from __future__ import annotations

import re

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_CONTROLS = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029{_BIDI}]")
_MARK = "\ufffd"


def printable(text: str) -> str:
    """Returns the text with U+FFFD in place of each control character, except tabs and line ends.

    Control characters can move the cursor, colour, hide or reorder text, or make a terminal send input. They are C0,
    DEL, C1, the separators of lines and paragraphs, and the marks that change the direction of writing.
    """
    return _CONTROLS.sub(_MARK, text)


def on_one_line(text: str) -> str:
    """Returns printable text with spaces for line ends, so that it cannot look like another line of a log."""
    return " ".join(printable(text.replace("\r\n", "\n")).split("\n"))


def counted(count: int, one: str, many: str = "") -> str:
    """Returns a number with its noun: "1 request", "2,000 requests". `many` is the plural; "": `one` with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Returns a length of time in words, such as "2 h 05 min"."""
    whole = max(0, int(seconds))
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {left:02} s" if minutes else f"{left} s"
