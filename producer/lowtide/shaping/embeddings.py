"""The bodies of embedding requests: their fields, the fields' types, and their places for each provider.

Users may write the fields beside the content or under `embedContentConfig`. They are sent where the SDK sends them: on
the Developer API beside the content, on Vertex AI under `embed_content_config`.

Source: https://ai.google.dev/api/embeddings (EmbedContentRequest) and
https://cloud.google.com/vertex-ai/generative-ai/docs/embeddings/batch-prediction-genai-embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lowtide.errors import refuse
from lowtide.shaping.fields import camel_case
from lowtide.shaping.paths import as_written

_TYPES: dict[str, type] = {
    "task_type": str,
    "title": str,
    "output_dimensionality": int,
    "auto_truncate": bool,
    "document_ocr": bool,
    "audio_track_extraction": bool,
}
_INT32 = 1 << 31
VERTEX_ONLY = frozenset({"auto_truncate", "document_ocr", "audio_track_extraction"})
_CONFIG = "embed_content_config"
_TYPE_NAMES = {str: "a string", int: "a whole number", bool: "true or false"}


class EmbeddingNames(NamedTuple):
    """The fields of embedding requests that one provider knows, and their place."""

    refused: Mapping[str, str]
    """Fields (in snake_case) that this provider does not take, each with the reason that the user is given."""
    under_config: bool
    """Whether the fields are under `embed_content_config`, in snake_case, or beside the content, in camelCase."""


def _both_cases(*names: str) -> dict[str, str]:
    return {spelling: name for name in names for spelling in (name, camel_case(name))}


_FIELDS = _both_cases(*_TYPES)
_MIME_TYPE = _both_cases("mime_type")
_DROPPED = _both_cases("http_options")
_REQUEST = _both_cases("content", "model", _CONFIG)


def from_inline(names: EmbeddingNames, content: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the body of one content and the fields of an `EmbedContentConfig`, in either letter case.

    Raises `InvalidRequest` for a field that is unknown, that the provider does not take, or of a wrong type.
    """
    given = {name: value for name, value in config.items() if value is not None and name not in _DROPPED}
    return {"content": content, **_placed(names, _checked(names, given, "config"))}


def from_rest(names: EmbeddingNames, request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the body of a REST line, its own fields checked, in one letter case and in the provider's place.

    The fields may be beside the content or under `embedContentConfig`, whichever provider the request is for. `content`
    and `model` stay as they are given: the caller checks them. Raises `InvalidRequest` like `from_inline`.
    """
    body: dict[str, Any] = {}
    beside: dict[str, Any] = {}
    for name, value in request.items():
        field = _REQUEST.get(name)
        if field is None:
            beside[name] = value
        elif field in body:
            refuse("given twice, in both letter cases", f"request.{name}")
        else:
            body[field] = value
    config = body.pop(_CONFIG, None) or {}
    at = f"request.{as_written(request, camel_case(_CONFIG))}"
    if not isinstance(config, Mapping):
        refuse(f"expected an object, got {type(config).__name__}", at)
    found = _checked(names, beside, "request")
    for name, value in _checked(names, config, at).items():
        if name in found:
            refuse(
                f"given twice: here, and beside the content as {name}", f"{at}.{as_written(config, camel_case(name))}"
            )
        found[name] = value
    return {**body, **_placed(names, found)}


def _checked(names: EmbeddingNames, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the fields by their names in snake_case, without those that are null."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        field = _FIELDS.get(name)
        if field is None:
            if name in _MIME_TYPE:
                refuse("no batch takes this field; a file's part holds its MIME type", f"{where}.{name}")
            refuse("unknown field", f"{where}.{name}")
        if field in names.refused:
            refuse(names.refused[field], f"{where}.{name}")
        if field in found:
            refuse("given twice, in both letter cases", f"{where}.{name}")
        expected = _TYPES[field]
        if value is not None and (not isinstance(value, expected) or (expected is int and isinstance(value, bool))):
            refuse(f"expected {_TYPE_NAMES[expected]}, got {type(value).__name__}", f"{where}.{name}")
        if isinstance(value, int) and field == "output_dimensionality" and not 1 <= value < _INT32:
            refuse("expected at least 1, and a number of 32 bits", f"{where}.{name}")
        found[field] = value
    return {name: value for name, value in found.items() if value is not None}


def _placed(names: EmbeddingNames, fields: dict[str, Any]) -> dict[str, Any]:
    if names.under_config:
        return {_CONFIG: fields} if fields else {}
    return {camel_case(name): value for name, value in fields.items()}
