"""Text from outside, made fit for a terminal or a log."""

from __future__ import annotations

import re

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_CONTROLS = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029{_BIDI}]")
_MARK = "\ufffd"


def printable(text: str) -> str:
    """The text with a mark in place of each control character, but for tabs and line ends.

    Those are what moves a cursor, colours, hides or reorders what is shown, or answers in the user's name: C0, DEL, C1,
    the separators of lines and paragraphs, and what changes the direction of writing.
    """
    return _CONTROLS.sub(_MARK, text)


def on_one_line(text: str) -> str:
    """The same with its line ends as blanks: it cannot look like a line of somebody else's."""
    return " ".join(printable(text.replace("\r\n", "\n")).split("\n"))
