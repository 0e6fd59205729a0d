"""The content of an answer: its text, calls, images and JSON, out of the provider's response as plain data.

Nothing here raises on a response of another shape than expected: it finds less.

Source: https://ai.google.dev/api/generate-content (Candidate, Content, Part).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import msgspec

_URL_FORM = str.maketrans("-_", "+/")


class FunctionCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that the model asks for."""

    name: str
    args: dict[str, Any] = {}
    id: str | None = None


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image that the model made."""

    data: bytes
    mime_type: str


def parts_of(response: Any) -> list[dict[str, Any]]:
    """The parts of the first candidate, thoughts included."""
    match response:
        case {"candidates": [{"content": {"parts": [*parts]}}, *_]}:
            return [part for part in parts if isinstance(part, dict)]
    return []


def text_of(response: Any) -> str | None:
    """The texts of the first candidate, joined, thoughts left out; None where there are none."""
    texts = [part["text"] for part in _said(response) if isinstance(part.get("text"), str)]
    return "".join(texts) if texts else None


def calls_of(response: Any) -> list[FunctionCall]:
    """The function calls of the first candidate."""
    found = []
    for part in _said(response):
        match part.get("functionCall"):
            case {"name": str(name), **more}:
                args, call_id = more.get("args"), more.get("id")
                found.append(
                    FunctionCall(
                        name=name,
                        args=args if isinstance(args, dict) else {},
                        id=call_id if isinstance(call_id, str) else None,
                    )
                )
    return found


def images_of(response: Any) -> list[Image]:
    """The images of the first candidate, decoded."""
    found = []
    for part in _said(response):
        match part.get("inlineData"):
            case {"mimeType": str(mime_type), "data": str(data)} if mime_type.startswith("image/"):
                try:
                    found.append(Image(data=base64.b64decode(data.translate(_URL_FORM)), mime_type=mime_type))
                except (binascii.Error, ValueError):
                    continue
    return found


def modalities_of(response: Any) -> dict[str, dict[str, int]]:
    """The tokens of a response by modality, under the names of `Usage`; empty where the provider reports none."""
    found: dict[str, dict[str, int]] = {}
    match response:
        case {"usageMetadata": dict(metadata)}:
            pass
        case _:
            return found
    for name, counter in _DETAILS.items():
        details = metadata.get(name)
        for one in details if isinstance(details, list) else ():
            match one:
                case {"modality": str(modality), "tokenCount": int() | str() as count} if _is_count(count):
                    tokens = found.setdefault(counter, {})
                    tokens[modality] = tokens.get(modality, 0) + int(count)
    return found


_DETAILS = {
    "promptTokensDetails": "prompt_token_count",
    "cacheTokensDetails": "cached_content_token_count",
    "candidatesTokensDetails": "candidates_token_count",
    "toolUsePromptTokensDetails": "tool_use_prompt_token_count",
}
_MOST_DIGITS = 18


def _is_count(count: int | str) -> bool:
    # JSON of the API may have integers as strings.
    digits = count if isinstance(count, str) else str(count) if 0 <= count < 10**_MOST_DIGITS else ""
    return digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS


def json_of(response: Any) -> Any:
    """The text of the first candidate decoded as JSON; None where it is no JSON."""
    text = text_of(response)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def is_empty(response: Any) -> bool:
    """Whether the first candidate has no text but white space, and no call, data or code.

    Thoughts alone are empty.
    """
    return not any(
        part["text"].strip() if part.keys() <= _TEXT and isinstance(part.get("text"), str) else part.keys() - _TEXT
        for part in _said(response)
    )


_TEXT = frozenset({"text", "thought", "thoughtSignature"})


def _said(response: Any) -> Iterator[dict[str, Any]]:
    return (part for part in parts_of(response) if not part.get("thought"))
