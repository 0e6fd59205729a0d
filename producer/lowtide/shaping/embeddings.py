"""The bodies of embedding requests: which fields there are, of which type, and where each provider wants them.

The Developer API takes an `EmbedContentRequest` with its fields in a row; Vertex AI takes the content beside an
`embed_content_config`.

Source: https://ai.google.dev/api/embeddings (EmbedContentRequest) and
https://cloud.google.com/vertex-ai/generative-ai/docs/embeddings/batch-prediction-genai-embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lowtide.errors import refuse

_TYPES: dict[str, type] = {
    "task_type": str,
    "title": str,
    "output_dimensionality": int,
    "auto_truncate": bool,
    "document_ocr": bool,
    "audio_track_extraction": bool,
}
_VERTEX_ONLY = frozenset({"auto_truncate", "document_ocr", "audio_track_extraction"})
_CONFIG = "embed_content_config"
_TYPE_NAMES = {str: "a string", int: "a whole number", bool: "true or false"}


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)


def _both_cases(*names: str) -> dict[str, str]:
    return {spelling: name for name in names for spelling in (name, _camel(name))}


_FIELDS = _both_cases(*_TYPES)
_MIME_TYPE = _both_cases("mime_type")
_DROPPED = _both_cases("http_options")
_REQUEST = _both_cases("content", "model", _CONFIG)


def from_inline(content: dict[str, Any], config: Mapping[str, Any], *, provider: str) -> dict[str, Any]:
    """The body of one content and the fields of an `EmbedContentConfig`, in either letter case.

    Raises `InvalidRequest` for a field that is unknown, that the provider does not know, or of a wrong type.
    """
    given = {name: value for name, value in config.items() if value is not None and name not in _DROPPED}
    return {"content": content, **_placed(_checked(given, "config", provider), provider)}


def from_rest(request: Mapping[str, Any], *, provider: str) -> dict[str, Any]:
    """The body that stands in a REST line, its own fields checked and in one letter case.

    `content` and `model` stay as they are given: the caller knows what they have to be. Raises `InvalidRequest`
    like `from_inline`, and where a field stands where the other provider wants it.
    """
    body: dict[str, Any] = {}
    loose: dict[str, Any] = {}
    for name, value in request.items():
        field = _REQUEST.get(name)
        if field is None:
            loose[name] = value
        elif field in body:
            refuse("given twice, in both letter cases", f"request.{name}")
        else:
            body[field] = value
    config = body.pop(_CONFIG, None)
    at = next((name for name in request if _REQUEST.get(name) == _CONFIG), _CONFIG)
    if provider == "vertex":
        for name in loose:
            hint = f"; Vertex AI takes it under {_CONFIG}" if name in _FIELDS else ""
            refuse(f"unknown field{hint}", f"request.{name}")
        if config is not None and not isinstance(config, Mapping):
            refuse(f"expected an object, got {type(config).__name__}", f"request.{at}")
        fields = _checked(config or {}, f"request.{at}", provider)
    else:
        if config is not None:
            refuse(
                "only Vertex AI knows this field; the Developer API takes its fields beside content", f"request.{at}"
            )
        fields = _checked(loose, "request", provider)
    return {**body, **_placed(fields, provider)}


def _checked(given: Mapping[str, Any], where: str, provider: str) -> dict[str, Any]:
    """The known fields by their names in snake_case, without those that are null."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        field = _FIELDS.get(name)
        if field is None:
            if name in _MIME_TYPE:
                refuse("no batch takes this field; the MIME type of a file stands in its part", f"{where}.{name}")
            refuse("unknown field", f"{where}.{name}")
        if field in _VERTEX_ONLY and provider != "vertex":
            refuse("only Vertex AI knows this field", f"{where}.{name}")
        if field in found:
            refuse("given twice, in both letter cases", f"{where}.{name}")
        expected = _TYPES[field]
        if value is not None and (not isinstance(value, expected) or (expected is int and isinstance(value, bool))):
            refuse(f"expected {_TYPE_NAMES[expected]}, got {type(value).__name__}", f"{where}.{name}")
        if isinstance(value, int) and field == "output_dimensionality" and value < 1:
            refuse(f"expected at least 1, got {value}", f"{where}.{name}")
        found[field] = value
    return {name: value for name, value in found.items() if value is not None}


def _placed(fields: dict[str, Any], provider: str) -> dict[str, Any]:
    if provider == "vertex":
        return {_CONFIG: fields} if fields else {}
    return {_camel(name): value for name, value in fields.items()}
