"""Brings what a user gives as a request into the form that a provider reads."""

from __future__ import annotations

from lowtide.shaping.files import file_lines, is_plain
from lowtide.shaping.items import as_item
from lowtide.shaping.keys import key_of, key_text, keyed
from lowtide.shaping.lines import json_lines, json_value
from lowtide.shaping.normalise import Shaped
from lowtide.shaping.shaper import Shaper, shaper_of

__all__ = [
    "Shaped",
    "Shaper",
    "as_item",
    "file_lines",
    "is_plain",
    "json_lines",
    "json_value",
    "key_of",
    "key_text",
    "keyed",
    "shaper_of",
]
