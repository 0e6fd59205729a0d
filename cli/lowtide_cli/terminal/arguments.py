"""A check of the arguments before any command parses them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def bad_argument(arguments: Sequence[str]) -> str | None:
    """Describes the first argument that is not text. Returns None if all arguments are text."""
    for number, argument in enumerate(arguments, 1):
        if _NOT_TEXT.search(argument):
            return f"argument {number} has control characters, or bytes that are not text in this locale: {argument!a}"
    return None
