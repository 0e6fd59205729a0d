"""Long lists of short cases, written as a text."""

from __future__ import annotations


def words(text: str) -> list[str]:
    """Returns the words of a text, a case each."""
    return text.split()
