"""OpenAI's batch format: its lines as requests, and results in its shape.

Source: https://platform.openai.com/docs/api-reference/batch and https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

from lowtide.openai.requests import field_of, is_line, translated
from lowtide.openai.results import result_line

__all__ = [
    "field_of",
    "is_line",
    "result_line",
    "translated",
]
