"""Turns what users write into the provider's REST shape, and refuses what it cannot send.

Two shapes come in: the SDK's inline shape (`contents`, flat `config`) and the REST line shape
(`{"key": ..., "request": {...}}`). One comes out: a `GenerateContentRequest` as JSON bytes.

Source: https://ai.google.dev/gemini-api/docs/batch-api (input file format, inline requests).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import msgspec

from lowtide import fields
from lowtide.errors import InvalidRequest
from lowtide.models import Request
from lowtide.schema import response_schema

_encode = msgspec.json.Encoder(enc_hook=lambda value: _plain(value)).encode
_TWICE = "given twice, in both letter cases"
_LINE = frozenset({"key", "metadata", "request", "contents", "config"})


class Normalised(NamedTuple):
    """One request, ready for the spool."""

    key: str
    metadata: dict[str, str] | None
    body: bytes
    """The GenerateContentRequest as JSON, one line, no newline."""


def normalise(item: object, *, model: str) -> Normalised:
    """Normalises one request.

    `item` is a `Request` or a mapping in either shape; `model` is the batch's, which a REST line
    may repeat. Raises `InvalidRequest` (without its position) where the request cannot be sent.
    """
    if isinstance(item, Request):
        key, metadata = _checked_key(item.key), item.metadata
        body = _from_inline(item.contents, item.config)
    elif isinstance(item, Mapping):
        key, metadata = _checked_key(item.get("key")), item.get("metadata")
        body = _from_mapping(item, model)
    else:
        _refuse(f"expected a lowtide.Request or a mapping, got {type(item).__name__}", "request")
    return Normalised(key, _checked_metadata(metadata), _encoded(body))


def _from_mapping(item: Mapping[str, Any], model: str) -> dict[str, Any]:
    unknown = item.keys() - _LINE
    if unknown:
        _refuse(
            "unknown field; a line holds key, metadata and either request or contents with config",
            str(min(unknown, key=str)),
        )
    if "request" not in item:
        return _from_inline(item.get("contents"), item.get("config"))
    if "contents" in item or "config" in item:
        _refuse(
            "give either request (REST shape) or contents with config (SDK shape), not both",
            "request",
        )
    request = item["request"]
    if not isinstance(request, Mapping):
        _refuse(f"expected an object, got {type(request).__name__}", "request")
    return _from_rest(request, model)


def _from_rest(request: Mapping[str, Any], model: str) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, value in request.items():
        field = fields.REQUEST.get(name)
        if field is None:
            hint = "; generation parameters belong under generationConfig" if name in fields.GENERATION else ""
            _refuse(f"unknown field{hint}", f"request.{name}")
        if field in body:
            _refuse(_TWICE, f"request.{name}")
        body[field] = value
    named = body.pop("model", None)
    if named is not None and str(named).removeprefix("models/") != model.removeprefix("models/"):
        _refuse(f"names another model than the batch's {model}", "request.model")
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        _refuse("expected a non-empty list of contents", "request.contents")
    body["contents"] = [_content(c, f"request.contents[{i}]") for i, c in enumerate(contents)]
    config = body.get("generationConfig")
    if config is not None:
        if not isinstance(config, Mapping):
            _refuse(f"expected an object, got {type(config).__name__}", "request.generationConfig")
        seen: set[str] = set()
        for name in config:
            field = fields.GENERATION.get(name)
            if field is None or field in seen:
                _refuse(_TWICE if field else "unknown field", f"request.generationConfig.{name}")
            seen.add(field)
    return body


def _from_inline(contents: Any, config: Any) -> dict[str, Any]:
    if contents is None or (isinstance(contents, (str, list, tuple)) and not contents):
        _refuse("missing or empty; a request needs something to answer", "contents")
    body: dict[str, Any] = {"contents": _contents(contents, "contents")}
    if config is None:
        return body
    generation: dict[str, Any] = {}
    for name, value in _config(config).items():
        if value is None:
            continue
        if (field := fields.GENERATION.get(name)) is not None:
            target = generation
        elif (field := fields.HOISTED.get(name) or fields.SYSTEM_INSTRUCTION.get(name)) is not None:
            target = body
        elif name in fields.VERTEX_ONLY:
            _refuse("only Vertex AI knows this field", f"config.{name}")
        elif name in fields.DROPPED:
            continue
        else:
            _refuse("unknown field", f"config.{name}")
        if field in target:
            _refuse(_TWICE, f"config.{name}")
        convert = _CONVERTED.get(field)
        target[field] = convert(value) if convert is not None else value
    body["generationConfig"] = generation
    return body


def _config(config: Any) -> Mapping[str, Any]:
    if isinstance(config, Mapping):
        return config
    if isinstance(config, type) or not hasattr(config, "model_dump"):
        _refuse(f"expected an object, got {type(config).__name__}", "config")
    # Its fields as they are: a model class in `response_schema`, which no dump can hold, is among them.
    return dict(config)


def _system_instruction(value: Any) -> dict[str, Any]:
    found = _contents(value, "config.system_instruction")
    if len(found) != 1:
        _refuse(f"expected one content, got {len(found)}", "config.system_instruction")
    return found[0]


def _tools(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        _refuse(f"expected a list, got {type(value).__name__}", "config.tools")
    if any(callable(tool) for tool in value):
        _refuse("a batch cannot call Python functions; give a function declaration", "config.tools")
    return value


def _speech_config(value: Any) -> Any:
    return {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": value}}} if isinstance(value, str) else value


def _cached_content(value: Any) -> Any:
    return f"cachedContents/{value}" if isinstance(value, str) and "/" not in value else value


# What the SDK does to a field's value on its way to the wire.
_CONVERTED: dict[str, Callable[[Any], Any]] = {
    "systemInstruction": _system_instruction,
    "responseSchema": response_schema,
    "tools": _tools,
    "speechConfig": _speech_config,
    "cachedContent": _cached_content,
}


def _contents(value: Any, where: str) -> list[dict[str, Any]]:
    """The SDK's rule: loose strings and parts gather into one content of their role, contents stay as they are."""
    if isinstance(value, str):
        return [{"role": "user", "parts": [{"text": value}]}]
    contents: list[dict[str, Any]] = []
    loose: list[dict[str, Any]] | None = None
    several = isinstance(value, (list, tuple))
    for index, item in enumerate(value if several else [value]):
        at = f"{where}[{index}]" if several else where
        if isinstance(item, (list, tuple)):
            contents.append(_content({"role": "user", "parts": item}, at))
            loose = None
            continue
        entry = {"text": item} if isinstance(item, str) else _mapping(item, at)
        if "parts" in entry:
            contents.append(_content(entry, at))
            loose = None
            continue
        part = _part(entry, at)
        role = "model" if "functionCall" in part or "function_call" in part else "user"
        if loose is None or contents[-1]["role"] != role:
            loose = []
            contents.append({"role": role, "parts": loose})
        loose.append(part)
    return contents


def _content(value: Any, where: str) -> dict[str, Any]:
    content = _mapping(value, where)
    for name in content:
        if name not in fields.CONTENT:
            _refuse("unknown field of a content", f"{where}.{name}")
    parts = content.get("parts")
    if not isinstance(parts, (list, tuple)) or not parts:
        _refuse("expected a non-empty list of parts", f"{where}.parts")
    return {**content, "parts": [_part(p, f"{where}.parts[{i}]") for i, p in enumerate(parts)]}


def _part(value: Any, where: str) -> dict[str, Any]:
    part = {"text": value} if isinstance(value, str) else _mapping(value, where)
    if None in part.values():
        part = {name: inner for name, inner in part.items() if inner is not None}
    for name in part:
        if name not in fields.PART:
            _refuse("unknown field of a part", f"{where}.{name}")
    if not part:
        _refuse("a part without content", where)
    if "text" in part and not isinstance(part["text"], str):
        _refuse(f"expected a string, got {type(part['text']).__name__}", f"{where}.text")
    return part


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    plain = _plain_or_none(value)
    if not isinstance(plain, dict):
        _refuse(f"expected text, an object or an SDK object, got {type(value).__name__}", where)
    if "uri" in plain and "mimeType" in plain:  # the SDK's File, as its upload returns it
        return {"fileData": {"fileUri": plain["uri"], "mimeType": plain["mimeType"]}}
    return plain


def _plain(value: Any) -> Any:
    """SDK objects are pydantic models; their own dump is the REST shape."""
    dump = getattr(value, "model_dump", None)
    if dump is None or isinstance(value, type):
        raise TypeError(f"{type(value).__name__} is not something JSON can hold")
    return dump(mode="json", by_alias=True, exclude_none=True)


def _plain_or_none(value: Any) -> Any:
    try:
        return dict(value) if isinstance(value, Mapping) else _plain(value)
    except (TypeError, ValueError):
        return None


def _checked_key(key: object) -> str:
    if not isinstance(key, str):
        _refuse("missing" if key is None else f"expected a string, got {type(key).__name__}", "key")
    if not key:
        _refuse("empty; a key is what gives the result back to you", "key")
    if not key.isascii():
        _check_unicode(key, "key")
    return key


def _checked_metadata(metadata: object) -> dict[str, str] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        _refuse(f"expected an object of strings, got {type(metadata).__name__}", "metadata")
    for name, value in metadata.items():
        for text in (name, value):
            if not isinstance(text, str):
                _refuse(f"expected strings, got {type(text).__name__}", f"metadata.{name}")
            _check_unicode(text, f"metadata.{name!r}")
    return dict(metadata)


def _check_unicode(text: str, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        _refuse("holds half a character (a lone surrogate), which JSON cannot hold", field)


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        encoded = _encode(body)
        # The codec writes NaN and the infinities as null, so only a body with a null needs the slow look.
        if b"null" in encoded:
            _check_numbers(msgspec.to_builtins(body, enc_hook=_plain), "request")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        _refuse(f"a value JSON cannot hold: {error}", "request")
    return encoded


def _check_numbers(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        _refuse(f"a value JSON cannot hold: {value}", where)
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_numbers(inner, f"{where}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _check_numbers(inner, f"{where}[{index}]")


def _refuse(reason: str, field: str) -> NoReturn:
    raise InvalidRequest(reason, field=field)
