"""From what a user gives as a request to the form that a provider reads."""

from __future__ import annotations

from lowtide.shaping.lines import json_lines, json_value
from lowtide.shaping.normalise import Normalised, for_importer, normalise

__all__ = [
    "Normalised",
    "for_importer",
    "json_lines",
    "json_value",
    "normalise",
]
