"""The requests of the demo: real questions about real texts, in both forms that a request can have.

The texts are the language reference that Python's `help()` shows, and in a checkout of the project also the lines of
`examples/topics.jsonl`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from lowtide import Request

EXAMPLES = Path(__file__).resolve().parents[4] / "examples" / "topics.jsonl"
_TEXT_CHARS = 1500
_QUESTIONS = {
    "": "Summarise in one sentence",
    "/title": "Give this text a title of at most five words",
    "/beginner": "Explain to a beginner in two sentences",
    "/keywords": "List the five most important terms",
}


def questions() -> Iterator[Request | Mapping[str, object]]:
    """Yields all requests of the demo."""
    yield from _reference()
    if EXAMPLES.is_file():
        with EXAMPLES.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.strip())


def _reference() -> Iterator[Request]:
    from pydoc_data.topics import topics  # deferred: half a megabyte of text

    for topic, text in topics.items():
        for suffix, question in _QUESTIONS.items():
            yield Request(
                key=f"{topic}{suffix}",
                contents=f"{question}: {text[:_TEXT_CHARS]}",
                config={"temperature": 0.2, "max_output_tokens": 200},
                metadata={"topic": topic},
            )
