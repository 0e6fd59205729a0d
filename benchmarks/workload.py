"""The work that every contender is given: the same prompts under the same keys, made on the fly.

A prompt is a short sentence, a request about 120 bytes as the provider sees it. The emulator's answer is a function of
the prompt alone, so whoever has all results has the same number of characters in hand, whichever way they came.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MODEL = "gemini-2.5-flash"
API_KEY = "k"
POLL_SECONDS = 0.5
"""Pause between two looks at a job, the same for everybody."""

ROW_BYTES = 1024
"""Length of a result line in the fan-out part, about."""

_FILLER = "The quick brown fox jumps over the lazy dog. "
_LONG_TEXT = (_FILLER * 20)[:640]


def key(number: int) -> str:
    """The user's key of a request."""
    return f"order-{number:07d}"


def prompt(number: int) -> str:
    """The text of a request."""
    return f"Say in one line: order {number} came on time, nothing was broken."


def prompts(size: int) -> Iterator[tuple[str, str]]:
    """Key and prompt of each request."""
    for number in range(size):
        yield key(number), prompt(number)


def text_of(response: dict[str, Any]) -> str:
    """The text of a GenerateContentResponse in the provider's JSON."""
    return str(response["candidates"][0]["content"]["parts"][0]["text"])


def long_answer(request: dict[str, Any]) -> dict[str, Any]:
    """The emulator's model in the fan-out part: a constant answer that makes result lines of about 1 KiB."""
    del request
    return _LONG_ANSWER


_LONG_ANSWER: dict[str, Any] = {
    "candidates": [
        {
            "content": {"parts": [{"text": _LONG_TEXT}], "role": "model"},
            "finishReason": "STOP",
            "index": 0,
            "avgLogprobs": -0.21,
        }
    ],
    "usageMetadata": {
        "promptTokenCount": 21,
        "candidatesTokenCount": 160,
        "thoughtsTokenCount": 30,
        "totalTokenCount": 211,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 21}],
    },
    "modelVersion": MODEL,
    "responseId": "3f1c0a9be27d4458b1a6c2",
}
