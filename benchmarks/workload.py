"""The work of every contender: the same prompts with the same keys, made as they are read.

A prompt is a short sentence, and a request is about 120 bytes in the provider's form. The emulator's answer depends
only on the prompt, so all contenders end with the same number of characters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MODEL = "gemini-3.5-flash"
API_KEY = "k"
POLL_SECONDS = 0.5
"""The pause between two polls of a job, the same for all contenders."""

ROW_BYTES = 1024
"""The approximate length of a result line in the fan-out part."""

_FILLER = "The quick brown fox jumps over the lazy dog. "
_LONG_TEXT = (_FILLER * 20)[:640]


def key(number: int) -> str:
    """Returns the user's key of a request."""
    return f"order-{number:07d}"


def prompt(number: int) -> str:
    """Returns the text of a request."""
    return f"Say in one line: order {number} came on time, nothing was broken."


def prompts(size: int) -> Iterator[tuple[str, str]]:
    """Yields the key and the prompt of each request."""
    for number in range(size):
        yield key(number), prompt(number)


def text_of(response: dict[str, Any]) -> str:
    """Returns the text of a GenerateContentResponse in the provider's JSON."""
    return str(response["candidates"][0]["content"]["parts"][0]["text"])


def long_answer(request: dict[str, Any]) -> dict[str, Any]:
    """Returns the emulator's answer in the fan-out part, which is constant and makes result lines of about 1 KiB."""
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
