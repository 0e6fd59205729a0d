"""Turns what users write into the provider's REST shape, and refuses what it cannot send.

Two shapes come in: the SDK's inline shape (`contents`, flat `config`) and the REST line shape
(`{"key": ..., "request": {...}}`). One comes out: a `GenerateContentRequest`, or an `EmbedContentRequest`, as JSON
bytes, with the names of the provider that the batch goes to.

Source: https://ai.google.dev/gemini-api/docs/batch-api (input file format, inline requests) and
https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-from-cloud-storage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, NoReturn

import msgspec

from lowtide import embeddings, fields
from lowtide.errors import InvalidRequest
from lowtide.importer import fitted
from lowtide.models import Request
from lowtide.schema import response_schema
from lowtide.states import Kind

_encode = msgspec.json.Encoder(enc_hook=lambda value: _plain(value)).encode
_decode = msgspec.json.Decoder().decode
_TWICE = "given twice, in both letter cases"
_LINE = frozenset({"key", "metadata", "request", "contents", "config"})


class Normalised(NamedTuple):
    """One request, ready for the spool."""

    key: str
    metadata: dict[str, str] | None
    body: bytes
    """The GenerateContentRequest or EmbedContentRequest as JSON, one line, no newline."""


def normalise(item: object, *, model: str, kind: Kind = Kind.GENERATION, provider: str = "gemini") -> Normalised:
    """Normalises one request.

    `item` is a `Request` or a mapping in either shape; `model` is the batch's, which a REST line
    may repeat; `provider` is "gemini" or "vertex". Raises `InvalidRequest` (without its position) where the request
    cannot be sent.
    """
    if provider == "vertex":
        return for_importer(item, model=model, kind=kind)[0]
    key, metadata, body = _read(item, model, _GEMINI if kind == _GENERATION else _GEMINI_EMBEDDING)
    return Normalised(key, metadata, _encoded(body))


def for_importer(item: object, *, model: str, kind: Kind = Kind.GENERATION) -> tuple[Normalised, dict[str, Any]]:
    """Normalises one request for Vertex AI, and gives its body as plain data too, as `Schemas.group` wants it."""
    key, metadata, body = _read(item, model, _VERTEX if kind == _GENERATION else _VERTEX_EMBEDDING)
    try:
        plain = _decode(_encoded(body))
    except (msgspec.DecodeError, RecursionError) as error:
        _refuse(f"a value JSON cannot hold: {error}", "request")
    mended = fitted(plain)
    return Normalised(key, metadata, _encode(mended)), mended


class _Form(NamedTuple):
    """How the two shapes become the body of one kind, for one provider."""

    from_inline: Callable[[Any, Any], dict[str, Any]]
    from_rest: Callable[[Mapping[str, Any], str], dict[str, Any]]


def _read(item: object, model: str, form: _Form) -> tuple[str, dict[str, str] | None, dict[str, Any]]:
    # Here and below `dict` goes before `Mapping`, which alone is ten times as slow to ask for.
    if isinstance(item, Request):
        key, metadata = _checked_key(item.key), item.metadata
        body = form.from_inline(item.contents, item.config)
    elif isinstance(item, (dict, Mapping)):
        key, metadata = _checked_key(item.get("key")), item.get("metadata")
        body = _from_mapping(item, model, form)
    else:
        _refuse(f"expected a lowtide.Request or a mapping, got {type(item).__name__}", "request")
    return key, _checked_metadata(metadata), body


def _from_mapping(item: Mapping[str, Any], model: str, form: _Form) -> dict[str, Any]:
    unknown = item.keys() - _LINE
    if unknown:
        _refuse(
            "unknown field; a line holds key, metadata and either request or contents with config",
            str(min(unknown, key=str)),
        )
    if "request" not in item:
        return form.from_inline(item.get("contents"), item.get("config"))
    if "contents" in item or "config" in item:
        _refuse(
            "give either request (REST shape) or contents with config (SDK shape), not both",
            "request",
        )
    request = item["request"]
    if not isinstance(request, (dict, Mapping)):
        _refuse(f"expected an object, got {type(request).__name__}", "request")
    return form.from_rest(request, model)


class _Names(NamedTuple):
    """The names one provider knows, each with the one it has on the wire."""

    generation: Mapping[str, str]
    """Of the SDK's `config`, what belongs under `generationConfig`."""
    hoisted: Mapping[str, str]
    """Of the SDK's `config`, what stands beside it."""
    request: Mapping[str, str]
    """Of a REST request."""
    rest_generation: Mapping[str, str]
    """Of its `generationConfig`."""
    refused: Mapping[str, str]
    """What another provider knows, with what to say about it."""
    converted: Mapping[str, Callable[[Any], Any]]
    """What the SDK does to a field's value on its way to the wire."""


def _from_rest(names: _Names, request: Mapping[str, Any], model: str) -> dict[str, Any]:
    body: dict[str, Any] = {}
    known = names.request
    for name, value in request.items():
        field = known.get(name)
        if field is None:
            hint = "; generation parameters belong under generationConfig" if name in names.generation else ""
            _refuse(names.refused.get(name, f"unknown field{hint}"), f"request.{name}")
        if field in body:
            _refuse(_TWICE, f"request.{name}")
        body[field] = value
    _check_model(body.pop("model", None), model)
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        _refuse("expected a non-empty list of contents", "request.contents")
    body["contents"] = [_content(c, f"request.contents[{i}]") for i, c in enumerate(contents)]
    config = body.get("generationConfig")
    if config is not None:
        if not isinstance(config, (dict, Mapping)):
            _refuse(f"expected an object, got {type(config).__name__}", "request.generationConfig")
        known = names.rest_generation
        seen: set[str] = set()
        for name in config:
            field = known.get(name)
            if field is None or field in seen:
                reason = _TWICE if field else names.refused.get(name, "unknown field")
                _refuse(reason, f"request.generationConfig.{name}")
            seen.add(field)
    return body


def _check_model(named: object, model: str) -> None:
    if named is not None and _bare(str(named)) != _bare(model):
        _refuse(f"names another model than the batch's {model}", "request.model")


def _bare(model: str) -> str:
    return model.removeprefix("publishers/google/").removeprefix("models/")


def _from_inline(names: _Names, contents: Any, config: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"contents": _given_contents(contents)}
    if config is None:
        return body
    generation: dict[str, Any] = {}
    in_generation, hoisted, _, _, refused, converted = names
    for name, value in _config(config).items():
        if value is None:
            continue
        if (field := in_generation.get(name)) is not None:
            target = generation
        elif (field := hoisted.get(name)) is not None:
            target = body
        elif name in refused:
            _refuse(refused[name], f"config.{name}")
        elif name in fields.DROPPED:
            continue
        else:
            _refuse("unknown field", f"config.{name}")
        if field in target:
            _refuse(_TWICE, f"config.{name}")
        convert = converted.get(field)
        target[field] = convert(value) if convert is not None else value
    body["generationConfig"] = generation
    return body


def _config(config: Any) -> Mapping[str, Any]:
    if isinstance(config, (dict, Mapping)):
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


def _image_config(value: Any) -> Any:
    config, options = {}, {}
    for name, inner in _mapping(value, "config.image_config").items():
        if (option := _IMAGE_OPTIONS.get(name)) is None:
            config[name] = inner
        elif inner is not None:
            options[option] = inner
    return {"imageOutputOptions": options, **config} if options else config


_IMAGE_OPTIONS = {
    "output_mime_type": "mimeType",
    "outputMimeType": "mimeType",
    "output_compression_quality": "compressionQuality",
    "outputCompressionQuality": "compressionQuality",
}
_CONVERTED: dict[str, Callable[[Any], Any]] = {
    "systemInstruction": _system_instruction,
    "responseSchema": response_schema,
    "tools": _tools,
    "speechConfig": _speech_config,
    "cachedContent": _cached_content,
}
_GEMINI_NAMES = _Names(
    generation=fields.GENERATION,
    hoisted={**fields.HOISTED, **fields.SYSTEM_INSTRUCTION},
    request=fields.REQUEST,
    rest_generation=fields.GENERATION,
    refused=dict.fromkeys(fields.VERTEX_ONLY, "only Vertex AI knows this field"),
    converted=_CONVERTED,
)


def _vertex_names() -> _Names:
    """What the SDK's converters for Vertex AI say, and the fields its batches do not support."""
    gemini = _GEMINI_NAMES
    renamed = {"modelSelectionConfig": "modelConfig", "generationOutputConfig": "outputConfig"}
    sdk = {name: renamed.get(camel, camel) for name, camel in fields.VERTEX_ONLY.items()}
    rest = {name: camel for name, camel in fields.VERTEX_ONLY.items() if camel not in renamed}
    rest |= {camel: camel for camel in renamed.values()}
    rest |= {"model_config": "modelConfig", "output_config": "outputConfig"}
    reasons = {
        "store": "only the Gemini Developer API knows this field",
        "enableEnhancedCivicAnswers": "only the Gemini Developer API knows this field",
        "cachedContent": "Vertex AI's batches take no cached content",
    }

    def without(names: Mapping[str, str]) -> dict[str, str]:
        return {name: camel for name, camel in names.items() if camel not in reasons}

    def these(names: Mapping[str, str], *, beside: bool) -> dict[str, str]:
        return {name: wire for name, wire in names.items() if (wire in _BESIDE_GENERATION) is beside}

    return _Names(
        generation=without(gemini.generation) | these(sdk, beside=False),
        hoisted=without(gemini.hoisted) | these(sdk, beside=True),
        request=without(gemini.request) | these(rest, beside=True),
        rest_generation=without(gemini.rest_generation) | these(rest, beside=False),
        refused={
            name: reasons[camel] for name, camel in {**gemini.generation, **gemini.hoisted}.items() if camel in reasons
        },
        converted={**_CONVERTED, "imageConfig": _image_config},
    )


_BESIDE_GENERATION = frozenset({"modelArmorConfig", "outputConfig"})
_VERTEX_NAMES = _vertex_names()


def _with_roles(body: dict[str, Any]) -> dict[str, Any]:
    """Vertex AI wants a role with each content, where the Developer API takes the user's for granted."""
    for content in body["contents"]:
        if content.get("role") is None:
            content["role"] = _role(content["parts"][0])
    return body


def _embedding_from_inline(contents: Any, config: Any, provider: str) -> dict[str, Any]:
    found = _given_contents(contents)
    if len(found) != 1:
        _refuse(f"expected one content, got {len(found)}; each gets a vector, and so a request, of its own", "contents")
    return embeddings.from_inline(found[0], {} if config is None else _config(config), provider=provider)


def _embedding_from_rest(request: Mapping[str, Any], model: str, provider: str) -> dict[str, Any]:
    body = embeddings.from_rest(request, provider=provider)
    _check_model(body.pop("model", None), model)
    if body.get("content") is None:
        _refuse("missing; a request needs something to embed", "request.content")
    body["content"] = _content(body["content"], "request.content")
    return body


def _given_contents(contents: Any) -> list[dict[str, Any]]:
    if contents is None or (isinstance(contents, (str, list, tuple)) and not contents):
        _refuse("missing or empty; a request needs something to work on", "contents")
    return _contents(contents, "contents")


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
        role = _role(part)
        if loose is None or contents[-1]["role"] != role:
            loose = []
            contents.append({"role": role, "parts": loose})
        loose.append(part)
    return contents


def _role(part: Mapping[str, Any]) -> str:
    return "model" if "functionCall" in part or "function_call" in part else "user"


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


_GENERATION = Kind.GENERATION
_GEMINI = _Form(partial(_from_inline, _GEMINI_NAMES), partial(_from_rest, _GEMINI_NAMES))
_VERTEX = _Form(
    lambda contents, config: _with_roles(_from_inline(_VERTEX_NAMES, contents, config)),
    lambda request, model: _with_roles(_from_rest(_VERTEX_NAMES, request, model)),
)
_GEMINI_EMBEDDING = _Form(
    partial(_embedding_from_inline, provider="gemini"), partial(_embedding_from_rest, provider="gemini")
)
_VERTEX_EMBEDDING = _Form(
    partial(_embedding_from_inline, provider="vertex"), partial(_embedding_from_rest, provider="vertex")
)
