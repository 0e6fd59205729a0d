"""A line of an OpenAI batch file, translated to a request in the provider's REST shape.

What has no equivalent is refused with its field; what only steers OpenAI's own service is left out.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from lowtide.errors import InvalidRequest, refuse

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
_LINE = frozenset({"custom_id", "method", "url", "body", "metadata"})
_LEFT_OUT = frozenset(
    {"model", "messages", "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"}
)
"""Fields of a body that are read elsewhere, or that mean something to OpenAI's service only."""
_EFFORTS = {"none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH"}
_MODES = {"none": "NONE", "auto": "AUTO", "required": "ANY"}
_FIRST = re.compile(r"\w*", re.ASCII)
_AUDIO = {"wav": "audio/wav", "mp3": "audio/mp3"}


def is_line(item: Mapping[str, Any]) -> bool:
    """Whether a mapping is a line of an OpenAI batch file: `custom_id` and `body`, and no `key`."""
    return "custom_id" in item and "body" in item and item.get("key") is None


def translated(line: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The line as `{"key": ..., "request": ...}`, where `request` is for chat or for embeddings.

    `model` is the batch's and decides; one that the line names is ignored, unless it is another Gemini model. Raises
    `InvalidRequest` (without its position) for what has no equivalent.
    """
    if unknown := sorted(map(str, line.keys() - _LINE - {"key"})):
        refuse("unknown field; a line of OpenAI's batches holds custom_id, method, url and body", unknown[0])
    body = line["body"]
    if not isinstance(body, Mapping):
        refuse(f"expected an object, got {type(body).__name__}", "body")
    _check_model(body.get("model"), model)
    match line.get("url", CHAT):
        case "/v1/chat/completions":
            request = _chat(body)
        case "/v1/embeddings":
            request = _embedding(body)
        case _ if "contents" in body:
            refuse('a request of Gemini\'s own; write it as {"key": ..., "request": ...}', "body")
        case other:
            refuse(f"{other!r:.80} cannot be translated; {CHAT} and {EMBEDDINGS} can", "url")
    key = {"key": line["custom_id"], "request": request}
    return key | {"metadata": line["metadata"]} if line.get("metadata") else key


def _check_model(named: Any, model: str) -> None:
    name = str(named or "").rpartition("/")[2]
    if name.startswith("gemini") and name != model.rpartition("/")[2]:
        refuse(f"names {name:.80}, and the batch has {model}; remove it, or submit with that model", "body.model")


def _chat(body: Mapping[str, Any]) -> dict[str, Any]:
    request: dict[str, Any] = _conversation(body.get("messages"))
    generation: dict[str, Any] = {}
    for name, value in body.items():
        if value is None or name in _LEFT_OUT:
            continue
        if name in _RENAMED:
            if _RENAMED[name] in generation:
                refuse("given twice, under both of its names", f"body.{name}")
            generation[_RENAMED[name]] = value
        elif name in _TRANSLATED:
            _TRANSLATED[name](value, f"body.{name}", request, generation)
        elif name in _ONLY_AS:
            if value != _ONLY_AS[name]:
                refuse(f"only {_ONLY_AS[name]!r} can be translated", f"body.{name}")
        else:
            refuse("has no equivalent in Gemini", f"body.{name}")
    if generation:
        request["generationConfig"] = generation
    return request


_RENAMED = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "seed": "seed",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
_ONLY_AS: dict[str, Any] = {"stream": False, "parallel_tool_calls": True, "logit_bias": {}, "modalities": ["text"]}
"""Fields with the one value that asks for nothing that Gemini does not do."""


_SOURCES = {
    "contents": "messages",
    "systemInstruction": "messages",
    "tools": "tools",
    "toolConfig": "tool_choice",
    "stopSequences": "stop",
    "thinkingConfig": "reasoning_effort",
    "responseMimeType": "response_format",
    "responseJsonSchema": "response_format",
    "content": "input",
    "outputDimensionality": "dimensions",
} | {field: "|".join(of for of in _RENAMED if _RENAMED[of] == field) for field in _RENAMED.values()}
"""Fields of a translation, each with the field of a body that it comes from."""


def field_of(path: str) -> str:
    """The field of a line that a field of its translation comes from: `body` alone where its place is not known.

    - `path`: of the translated line, with or without `request.` before it.
    """
    if path == "key":
        return "custom_id"
    if path.startswith("metadata"):
        return path
    name = re.sub(r"^(request\.)?(generationConfig\.|embed_content_config\.)?", "", path)
    source = _SOURCES.get(_FIRST.match(name)[0])  # type: ignore[index]  # it matches the empty text
    return f"body.{source}" if source else "body"


def _stop(value: Any, _: str, __: dict[str, Any], generation: dict[str, Any]) -> None:
    generation["stopSequences"] = [value] if isinstance(value, str) else value


def _effort(value: Any, where: str, _: dict[str, Any], generation: dict[str, Any]) -> None:
    generation["thinkingConfig"] = {"thinkingLevel": _one_of(_EFFORTS, value, where)}


def _response_format(value: Any, where: str, _: dict[str, Any], generation: dict[str, Any]) -> None:
    match value:
        case {"type": "text"}:
            return
        case {"type": "json_object"}:
            generation["responseMimeType"] = "application/json"
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            generation |= {"responseMimeType": "application/json", "responseJsonSchema": schema}
        case _:
            refuse("expected text, json_object or json_schema with a schema", where)


def _tools(value: Any, where: str, request: dict[str, Any], _: dict[str, Any]) -> None:
    declarations = []
    for index, tool in enumerate(_listed(value, where)):
        match tool:
            case {"type": "function", "function": {"name": name, **more}}:
                declaration = {"name": name}
                if more.get("description"):
                    declaration["description"] = more["description"]
                if more.get("parameters"):
                    declaration["parametersJsonSchema"] = more["parameters"]
                declarations.append(declaration)
            case _:
                refuse("only functions can be translated", f"{where}[{index}]")
    if declarations:
        request["tools"] = [{"functionDeclarations": declarations}]


def _tool_choice(value: Any, where: str, request: dict[str, Any], _: dict[str, Any]) -> None:
    match value:
        case {"type": "function", "function": {"name": name}}:
            config = {"mode": "ANY", "allowedFunctionNames": [name]}
        case _:
            config = {"mode": _one_of(_MODES, value, where)}
    request["toolConfig"] = {"functionCallingConfig": config}


_TRANSLATED: dict[str, Callable[[Any, str, dict[str, Any], dict[str, Any]], None]] = {
    "stop": _stop,
    "reasoning_effort": _effort,
    "response_format": _response_format,
    "tools": _tools,
    "tool_choice": _tool_choice,
}


def _conversation(messages: Any) -> dict[str, Any]:
    """Contents and system instruction; messages of one role in a row become one content."""
    contents: list[dict[str, Any]] = []
    system: list[dict[str, Any]] = []
    called: dict[str, str] = {}
    for index, message in enumerate(_listed(messages, "body.messages")):
        where = f"body.messages[{index}]"
        if not isinstance(message, Mapping):
            refuse(f"expected an object, got {type(message).__name__}", where)
        match message.get("role"):
            case "system" | "developer":
                system += _parts(message.get("content"), f"{where}.content")
            case "user":
                _say(contents, "user", _parts(message.get("content"), f"{where}.content"))
            case "assistant":
                said = message.get("content")
                parts = _parts(said, f"{where}.content") if said else []
                _say(contents, "model", parts + _calls(message.get("tool_calls"), f"{where}.tool_calls", called))
            case "tool":
                _say(contents, "user", [_answer(message, where, called)])
            case other:
                refuse(f"unknown role {other!r:.40}", f"{where}.role")
    if not contents:
        refuse("a request needs a message of a user", "body.messages")
    return {"contents": contents} | ({"systemInstruction": {"parts": system}} if system else {})


def _say(contents: list[dict[str, Any]], role: str, parts: list[dict[str, Any]]) -> None:
    if contents and contents[-1]["role"] == role:
        contents[-1]["parts"] += parts
    elif parts:
        contents.append({"role": role, "parts": parts})


def _parts(content: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}]
    return [_part(part, f"{where}[{index}]") for index, part in enumerate(_listed(content, where))]


def _part(part: Any, where: str) -> dict[str, Any]:
    match part:
        case {"type": "text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
            return {"text": text}
        case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
            return _media(url, f"{where}.image_url", "image")
        case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(form)}}:
            return {"inlineData": {"mimeType": _one_of(_AUDIO, form, f"{where}.input_audio.format"), "data": data}}
        case {"type": "file", "file": {"file_data": str(url)}}:
            return _media(url, f"{where}.file", "application/pdf")
        case _:
            raise InvalidRequest(
                "only text, image_url, input_audio and file (with file_data) can be translated", field=where
            )


def _media(url: str, where: str, expected: str) -> dict[str, Any]:
    """An inline part from a data: URL, or a reference to a place that the provider reads itself."""
    if url.startswith("data:"):
        head, comma, data = url.removeprefix("data:").partition(",")
        mime_type = head.removesuffix(";base64").partition(";")[0]
        if not comma or not mime_type or not head.endswith(";base64"):
            refuse("expected a data: URL with a MIME type and base64", where)
        return {"inlineData": {"mimeType": mime_type, "data": data}}
    try:
        place = urlsplit(url)
    except ValueError as error:
        refuse(f"not a URL: {error}", where)
    if place.scheme not in {"gs", "https"}:
        refuse("expected a data:, https: or gs: URL", where)
    kind, _ = mimetypes.guess_type(place.path)
    if kind is None or not kind.startswith(expected):
        refuse(f"the URL does not end as the name of a file of type {expected} does, so its type is unknown", where)
    return {"fileData": {"mimeType": kind, "fileUri": url}}


def _calls(calls: Any, where: str, called: dict[str, str]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for index, call in enumerate(_listed(calls, where) if calls else ()):
        match call:
            case {"id": str(call_id), "function": {"name": str(name), "arguments": arguments}}:
                called[call_id] = name
                parts.append({"functionCall": {"name": name, "args": _object(arguments, f"{where}[{index}]")}})
            case _:
                refuse("expected a call with id, function.name and function.arguments", f"{where}[{index}]")
    return parts


def _answer(message: Mapping[str, Any], where: str, called: Mapping[str, str]) -> dict[str, Any]:
    call_id = str(message.get("tool_call_id"))
    if call_id not in called:
        refuse("answers no call of the messages before it", f"{where}.tool_call_id")
    said = "".join(part.get("text", "") for part in _parts(message.get("content"), f"{where}.content"))
    try:
        found = msgspec.json.decode(said)
    except msgspec.DecodeError:
        found = said
    # Gemini wants an object, where OpenAI takes any text.
    return {
        "functionResponse": {
            "name": called[call_id],
            "response": found if isinstance(found, dict) else {"output": found},
        }
    }


def _object(text: Any, where: str) -> dict[str, Any]:
    """A JSON object written as text."""
    try:
        found = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, TypeError) as error:
        refuse(f"not JSON: {error}", where)
    if not isinstance(found, dict):
        refuse("expected a JSON object", where)
    return found


_VECTORS_AS_NUMBERS = (("encoding_format", "float"), ("encoding_format", None))


def _embedding(body: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in body.items():
        if name not in {"model", "input", "dimensions", "user"} and (name, value) not in _VECTORS_AS_NUMBERS:
            refuse("has no equivalent in Gemini", f"body.{name}")
    text = body.get("input")
    if isinstance(text, list) and len(text) == 1:
        text = text[0]
    if not isinstance(text, str):
        refuse("expected one text; give each text a line of its own", "body.input")
    request: dict[str, Any] = {"content": {"parts": [{"text": text}]}}
    if body.get("dimensions") is not None:
        request["outputDimensionality"] = body["dimensions"]
    return request


def _listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        refuse("expected a non-empty list", where)
    return value


def _one_of(names: Mapping[str, str], value: Any, where: str) -> str:
    if not isinstance(value, str) or value not in names:
        refuse(f"expected one of {', '.join(names)}, got {value!r:.60}", where)
    return names[value]
