"""Reads the shapes that users write, checks them, and builds the provider's REST body.

Two shapes come in: the SDK's inline shape (`contents`, flat `config`) and the REST line shape
(`{"key": ..., "request": {...}}`). One comes out: a `GenerateContentRequest` or an `EmbedContentRequest`. The field
names come from the provider: see `lowtide.shaping.gemini` and `lowtide.shaping.vertex`.

Source: https://ai.google.dev/gemini-api/docs/batch-api (input file format, inline requests) and
https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-from-cloud-storage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec

from lowtide import openai
from lowtide.errors import InvalidRequest, refuse
from lowtide.limits import MAX_KEY_BYTES, MAX_METADATA_BYTES
from lowtide.models import Request
from lowtide.shaping import embeddings, fields
from lowtide.shaping.contents import checked_content, checked_turn, given_contents, plain
from lowtide.shaping.dialects import Names
from lowtide.shaping.embeddings import EmbeddingNames
from lowtide.shaping.items import with_columns
from lowtide.shaping.keys import key_text, missing_key
from lowtide.shaping.lines import json_value
from lowtide.shaping.paths import as_given, as_written
from lowtide.shaping.response_schema import default_mime_type

encode = msgspec.json.Encoder(enc_hook=plain).encode
_TWICE = "given twice, in both letter cases"
_FIELD_CHARS = 200
"""Most characters of a field's name in an error: a user's name may be of any length."""


class Shaped(msgspec.Struct, frozen=True, gc=False):
    """One request in the provider's form, ready for the spool."""

    key: str
    metadata: dict[str, str] | None
    body: bytes
    """The GenerateContentRequest or EmbedContentRequest as JSON, one line, no newline."""
    group: int
    """Number (0-based) of the requests that it may share a job with. Always 0 where all may share one."""
    tokens: int
    """Estimated input tokens."""


class Form(NamedTuple):
    """Turns the two shapes into the body of one kind, for one provider."""

    from_inline: Callable[[Any, Any], dict[str, Any]]
    from_rest: Callable[[Mapping[str, Any], str], dict[str, Any]]


def generation_form(names: Names) -> Form:
    """Returns the form of `generateContent` requests with a provider's field names."""
    return Form(partial(_from_inline, names), partial(_from_rest, names))


def embedding_form(names: EmbeddingNames) -> Form:
    """Returns the form of `embedContent` requests with a provider's field names."""
    return Form(partial(_embedding_from_inline, names), partial(_embedding_from_rest, names))


def read(item: object, model: str, form: Form) -> tuple[str, dict[str, str] | None, dict[str, Any]]:
    """Returns the key, the metadata and the body of one request. Raises `InvalidRequest` (without its position).

    - `item`: a `Request`, or a mapping in either shape.
    - `model`: the model of the batch, which a REST line may repeat.
    - `form`: the form of the batch's kind and provider.
    """
    # Here and below `dict` is tested before `Mapping`, because a test for `Mapping` alone takes ten times as long.
    if isinstance(item, Request):
        key, metadata = _checked_key(item.key), item.metadata
        body = form.from_inline(item.contents, item.config)
    elif isinstance(item, (dict, Mapping)):
        if openai.is_line(item):
            return _from_openai(item, model, form)
        if item.get("key") is None:
            refuse(missing_key(item), "key")
        key, metadata = _checked_key(item["key"]), with_columns(item, item.get("metadata"))
        body = _from_mapping(item, model, form)
    else:
        refuse(f"expected a lowtide.Request or a mapping, got {type(item).__name__}", "request")
    return key, _checked_metadata(metadata), body


def _from_openai(line: Mapping[str, Any], model: str, form: Form) -> tuple[str, dict[str, str] | None, dict[str, Any]]:
    """As `read`, of a line of OpenAI's. An error names the field of that line."""
    translated = openai.translated(line, model)
    try:
        return read(translated, model, form)
    except InvalidRequest as error:
        error.field = openai.field_of(error.field)
        raise


def _from_mapping(item: Mapping[str, Any], model: str, form: Form) -> dict[str, Any]:
    _check_model(item.get("model"), model, "model")
    if "request" not in item:
        return form.from_inline(item.get("contents"), item.get("config"))
    if "contents" in item or "config" in item:
        refuse(
            "give either request (REST shape) or contents with config (SDK shape), not both",
            "request",
        )
    request = item["request"]
    if isinstance(request, str) and request.lstrip().startswith("{"):
        request = json_value(request, 0, "request")  # as a table with a column of text is exported
    if not isinstance(request, (dict, Mapping)):
        refuse(f"expected an object, got {type(request).__name__}", "request")
    return form.from_rest(request, model)


def _from_rest(names: Names, request: Mapping[str, Any], model: str) -> dict[str, Any]:
    body: dict[str, Any] = {}
    known = names.request
    for name, value in request.items():
        field = known.get(name)
        if field is None:
            if name in names.generation:
                refuse("unknown field; generation parameters belong under generationConfig", f"request.{name}")
            field = _unknown(names, name, "request")
        if field in body:
            refuse(_TWICE, f"request.{name}")
        body[field] = value
    _check_model(body.pop("model", None), model, "request.model")
    contents = body.get("contents")
    if isinstance(contents, dict):
        # The service, too, takes one content for a list of one.
        contents = [contents]
    if not isinstance(contents, list) or not contents:
        refuse('expected a list of contents, such as [{"role": "user", "parts": [{"text": ...}]}]', "request.contents")
    body["contents"] = [checked_turn(c, f"request.contents[{i}]") for i, c in enumerate(contents)]
    config = body.get("generationConfig")
    if config is not None:
        where = f"request.{as_written(request, 'generationConfig')}"
        if not isinstance(config, (dict, Mapping)):
            refuse(f"expected an object, got {type(config).__name__}", where)
        body["generationConfig"] = _generation_config(names, config, where)
    return body


def _generation_config(names: Names, config: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Returns the `generationConfig` of a REST request, its names checked and its schemas in the provider's dialect."""
    known, converted = names.rest_generation, names.in_both_shapes
    found: dict[str, Any] = {}
    seen: set[str] = set()
    for name in config:
        field = known.get(name) or _unknown(names, name, where)
        if field in seen:
            refuse(_TWICE, f"{where}.{name}")
        seen.add(field)
        if field in converted and config[name] is not None:
            found[name] = converted[field](config[name], f"{where}.{name}")
    if "responseSchema" in seen and "responseMimeType" not in seen:
        _add_mime_type(found, config)
    return {**config, **found} if found else config


def _unknown(names: Names, name: str, where: str) -> str:
    """Returns the name of a field that may belong to a newer model; `RequestCheck` decides whether it is sent."""
    if name in names.refused:
        refuse(names.refused[name], f"{where}.{name}")
    return name


def _add_mime_type(generation: dict[str, Any], given: Mapping[str, Any]) -> None:
    if mime_type := default_mime_type(given.get(as_written(given, "responseSchema"))):
        generation["responseMimeType"] = mime_type


def _check_model(named: object, model: str, where: str) -> None:
    if named is not None and _bare(str(named)) != _bare(model):
        refuse(f"names a model other than the batch's {model}", where)


def _bare(model: str) -> str:
    return model.removeprefix("publishers/google/").removeprefix("models/")


def _from_inline(names: Names, contents: Any, config: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"contents": given_contents(contents)}
    if config is None:
        return body
    generation: dict[str, Any] = {}
    in_generation, hoisted, _, _, _, converted, _ = names
    config = _config(config)
    for name, value in config.items():
        if value is None:
            continue
        if (field := in_generation.get(name)) is not None:
            target = generation
        elif (field := hoisted.get(name)) is not None:
            target = body
        elif name in fields.DROPPED:
            continue
        else:
            field, target = _unknown(names, name, "config"), generation
        if field in target:
            refuse(_TWICE, f"config.{name}")
        convert = converted.get(field)
        target[field] = convert(value, f"config.{name}") if convert is not None else value
    if "responseSchema" in generation and "responseMimeType" not in generation:
        _add_mime_type(generation, config)
    body["generationConfig"] = generation
    return body


def _config(config: Any) -> Mapping[str, Any]:
    if isinstance(config, (dict, Mapping)):
        return config
    if isinstance(config, type) or not hasattr(config, "model_dump"):
        refuse(f"expected an object, got {type(config).__name__}", "config")
    # The fields stay as they are, because one of them, `response_schema`, may be a class, which no dump can hold.
    return dict(config)


def _embedding_from_inline(names: EmbeddingNames, contents: Any, config: Any) -> dict[str, Any]:
    if isinstance(contents, (list, tuple)) and len(contents) > 1:
        # For one model the SDK makes a vector of each, for another one vector of all.
        refuse(
            f"{len(contents)} items, whose vectors could be one or several; give a request for each, or one content "
            'with parts: {"parts": [...]}',
            "contents",
        )
    found = given_contents(contents)
    if len(found) != 1:
        refuse(f"expected one content, got {len(found)}; submit a request for each content to embed", "contents")
    return embeddings.from_inline(names, found[0], {} if config is None else _config(config))


def _embedding_from_rest(names: EmbeddingNames, request: Mapping[str, Any], model: str) -> dict[str, Any]:
    body = embeddings.from_rest(names, request)
    _check_model(body.pop("model", None), model, "request.model")
    if body.get("content") is None:
        refuse("missing; a request needs a content to embed", "request.content")
    body["content"] = checked_content(body["content"], "request.content")
    return body


def _checked_key(key: object) -> str:
    key = key_text(key)
    if not isinstance(key, str):
        refuse("missing" if key is None else f"expected a string, got {type(key).__name__}", "key")
    if not key:
        refuse("empty; the key identifies the result", "key")
    if _bytes_of(key, "key") > MAX_KEY_BYTES:
        refuse(f"longer than {MAX_KEY_BYTES:,} bytes, the most a key may have", "key")
    return key


def _checked_metadata(metadata: object) -> dict[str, str] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        refuse(f"expected an object of strings, got {type(metadata).__name__}", "metadata")
    size = 0
    for name, value in metadata.items():
        for text in (name, value):
            if not isinstance(text, str):
                refuse(f"expected strings, got {type(text).__name__}", f"metadata.{name}"[:_FIELD_CHARS])
            size += _bytes_of(text, f"metadata.{name!r}"[:_FIELD_CHARS])
    if size > MAX_METADATA_BYTES:
        refuse(f"{size:,} bytes, more than the {MAX_METADATA_BYTES:,} that a request's metadata may have", "metadata")
    return dict(metadata)


def _bytes_of(text: str, field: str) -> int:
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        refuse("has a lone surrogate (half a character), which UTF-8 cannot hold; replace it", field)


def encoded(item: object, body: dict[str, Any]) -> bytes:
    """Returns a body as JSON. Raises `InvalidRequest` for a value that JSON cannot hold.

    `item`: the request as the user gave it, whose shape decides how a field is called in the error.
    """
    try:
        text = encode(body)
        # The codec writes NaN and the infinities as null, so only a body with a null needs the slow check.
        if b"null" in text:
            _check_values(item, body, "")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        _check_values(item, body, "")
        refuse(f"a value JSON cannot hold: {error}", "request")
    return text


def _check_values(item: object, value: Any, path: str) -> None:
    """Raises `InvalidRequest` for the first value that JSON cannot hold, with its field."""
    try:
        if isinstance(value, (dict, Mapping)):
            encode(dict.fromkeys(value))
            for name, inner in value.items():
                _check_values(item, inner, f"{path}.{name}" if path else str(name))
        elif isinstance(value, (list, tuple)):
            for index, inner in enumerate(value):
                _check_values(item, inner, f"{path}[{index}]")
        elif isinstance(value, float) and not math.isfinite(value):
            refuse(f"a value JSON cannot hold: {value}", as_given(item, path))
        elif isinstance(found := msgspec.to_builtins(value, enc_hook=plain), (dict, list)):
            _check_values(item, found, path)
        else:
            encode(found)
    except RecursionError:
        refuse("nested too deeply; use fewer levels", "request")
    except (TypeError, ValueError, OverflowError) as error:
        refuse(f"a value JSON cannot hold: {error}", as_given(item, path))
