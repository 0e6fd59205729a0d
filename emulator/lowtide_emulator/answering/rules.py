"""The rules that the service checks when it answers a row: a request that breaks one fails alone.

Only rules are here that the documentation states, or that the service is known to report. A request has the right
fields and types already, in either spelling.

Source: https://ai.google.dev/api/generate-content and https://ai.google.dev/api/caching
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Raw

from lowtide_emulator.answering.answers import Answerer, Reply, RowError
from lowtide_emulator.wire import snake

Json = dict[str, Any]
Broken = Iterator[str]
Rule = Callable[[Any, str, Json], Broken]
"""A rule for the value of one field, which gets its place and the message around it too."""

ROLES = frozenset({"", "user", "model", "function", "tool"})
TEXT, ENUM = "text/plain", "text/x.enum"
MIME_TYPES = (TEXT, "application/json", "application/xml", "application/yaml", ENUM)
MAX_STOP_SEQUENCES = 5
_DATA = (
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
    "audioTranscription",
    "toolCall",
    "toolResponse",
)
_ANY_DATA = frozenset(_DATA) | {snake(name) for name in _DATA}
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_decode = msgspec.json.Decoder().decode


class RuledModel:
    """A model that refuses requests which break a rule."""

    def __init__(self, model: Answerer) -> None:
        self._model = model

    def reply(self, key: str | None, request: Raw) -> Reply:
        """Returns the response to a request, or an error."""
        broken = broken_rule(_decode(request))
        return self._model.reply(key, request) if broken is None else RowError(3, broken)


def broken_rule(request: Json) -> str | None:
    """Returns the service's text for the first rule that a GenerateContentRequest breaks; None if it breaks none."""
    if not request.get("contents"):
        return "* GenerateContentRequest.contents: contents is not specified\n"
    return next(_broken(request, "GenerateContentRequest", _REQUEST), None)


def get(message: Json, camel: str) -> Any:
    """Returns the value of a field of a message, under either spelling; None if it is not set."""
    found = message.get(camel)
    return message.get(snake(camel)) if found is None else found


def items(value: Any) -> list[Any]:
    """Returns the values of a repeated field, which may be sent as one value."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _broken(message: Json, place: str, rules: dict[str, Rule]) -> Broken:
    for name, value in message.items():
        rule = rules.get(name)
        if rule is not None and value is not None:
            yield from rule(value, f"{place}.{snake(name)}", message)


def _rules(**by_name: Rule) -> dict[str, Rule]:
    return by_name | {snake(name): rule for name, rule in by_name.items()}


# Contents


def _contents(value: Any, place: str, request: Json) -> Broken:
    del request
    for index, content in enumerate(items(value)):
        if (content.get("role") or "") not in ROLES:
            yield "Please use a valid role: user, model."
        yield from _content(content, f"{place}[{index}]", {})


def _content(content: Json, place: str, request: Json) -> Broken:
    del request
    parts = items(content.get("parts"))
    if not parts:
        yield f"* {place}.parts: contents.parts must not be empty.\n"
    for index, part in enumerate(parts):
        if _ANY_DATA.isdisjoint(name for name, value in part.items() if value is not None):
            yield f"* {place}.parts[{index}].data: required oneof field 'data' must have one initialized field\n"
        blob = get(part, "inlineData")
        if blob is not None and not get(blob, "mimeType"):
            yield f"* {place}.parts[{index}].inline_data.mime_type: mime_type is not specified\n"
        file = get(part, "fileData")
        if file is not None and not get(file, "fileUri"):
            yield f"* {place}.parts[{index}].file_data.file_uri: file_uri is not specified\n"


# Parameters


def _within(low: float, high: float) -> Rule:
    def rule(value: Any, place: str, config: Json) -> Broken:
        del config
        if not low <= float(value) <= high:
            yield f"* {place}: {place.rpartition('.')[2]} must be in the range [{low}, {high}].\n"

    return rule


def _positive(value: Any, place: str, config: Json) -> Broken:
    del config
    if float(value) < 1:
        yield f"* {place}: {place.rpartition('.')[2]} must be positive.\n"


def _stop_sequences(value: Any, place: str, config: Json) -> Broken:
    del config
    if len(items(value)) > MAX_STOP_SEQUENCES:
        yield f"* {place}: at most {MAX_STOP_SEQUENCES} stop sequences may be specified.\n"


def _mime_type(value: Any, place: str, config: Json) -> Broken:
    del config
    if value and value not in MIME_TYPES:
        yield f"* {place}: allowed mimetypes are {', '.join(f'`{name}`' for name in MIME_TYPES)}.\n"


def _response_schema(value: Any, place: str, config: Json) -> Broken:
    mime = get(config, "responseMimeType") or TEXT
    if mime == TEXT:
        yield f"* {place}: response schema with mime type '{mime}' is unsupported\n"
    yield from _schema(value, place, config)


def _response_json_schema(value: Any, place: str, config: Json) -> Broken:
    del value
    if get(config, "responseSchema") is not None:
        yield f"* {place}: response_json_schema and response_schema must not both be set\n"
    if (get(config, "responseMimeType") or TEXT) == TEXT:
        yield f"* {place}: response_json_schema needs a response_mime_type\n"


def _thinking(value: Any, place: str, config: Json) -> Broken:
    del place, config
    if get(value, "thinkingBudget") is not None and get(value, "thinkingLevel") is not None:
        yield "You can only set only one of thinking budget and thinking level."


def _config(value: Any, place: str, request: Json) -> Broken:
    del request
    yield from _broken(value, place, _CONFIG)


def _schema(schema: Json, place: str, message: Json) -> Broken:
    del message
    kind = str(schema.get("type") or "").upper()
    properties = schema.get("properties") or {}
    if kind == "OBJECT" and not properties:
        yield f"* {place}.properties: should be non-empty for OBJECT type\n"
    if kind == "ARRAY" and schema.get("items") is None:
        yield f"* {place}.items: missing field.\n"
    if kind not in ("", "STRING") and items(schema.get("enum")):
        yield f"* {place}.enum: only allowed for STRING type\n"
    for index, name in enumerate(items(schema.get("required"))):
        if name not in properties:
            yield f"* {place}.required[{index}]: property is not defined\n"
    for name, inner in properties.items():
        yield from _schema(inner, f"{place}.properties[{name}]", schema)
    if schema.get("items") is not None:
        yield from _schema(schema["items"], f"{place}.items", schema)
    for index, inner in enumerate(items(get(schema, "anyOf"))):
        yield from _schema(inner, f"{place}.any_of[{index}]", schema)


# Tools


def _tools(value: Any, place: str, request: Json) -> Broken:
    del request
    seen: set[str] = set()
    for number, tool in enumerate(items(value)):
        for index, function in enumerate(items(get(tool, "functionDeclarations"))):
            at = f"{place}[{number}].function_declarations[{index}]"
            name = function.get("name") or ""
            if _FUNCTION.fullmatch(name) is None:
                yield (
                    f"* {at}.name: [FIELD_INVALID] Invalid function name. Must start with a letter or an underscore. "
                    "Must be alphanumeric (a-z, A-Z, 0-9), underscores (_), dots (.), colons (:), or dashes (-), with "
                    "a maximum length of 128.\n"
                )
            if name in seen:
                yield f"Duplicate function declaration found: {name}"
            seen.add(name)
            yield from _parameters(function, at)


def _parameters(function: Json, place: str) -> Broken:
    parameters = function.get("parameters")
    if parameters is None:
        return
    if get(function, "parametersJsonSchema") is not None:
        yield f"* {place}: parameters and parameters_json_schema must not both be set\n"
    kind = str(parameters.get("type") or "OBJECT").upper()
    if kind != "OBJECT":
        yield f"* {place}.parameters: functionDeclaration parameters schema should be of type OBJECT.\n"
    yield from _schema(parameters, f"{place}.parameters", function)


def _tool_config(value: Any, place: str, request: Json) -> Broken:
    calling = get(value, "functionCallingConfig") or {}
    allowed = items(get(calling, "allowedFunctionNames"))
    if not allowed:
        return
    if str(calling.get("mode") or "AUTO").upper() not in ("ANY", "VALIDATED"):
        yield "Function calling config is set without function_calling_config.mode ANY: allowed_function_names need it."
    declared = {function.get("name") for tool in items(request.get("tools")) for function in functions(tool)}
    for name in allowed:
        if name not in declared:
            at = f"{place}.function_calling_config.allowed_function_names"
            yield f"* {at}: allowed_function_names should be a subset of the declared functions, {name} is not\n"


def functions(tool: Json) -> list[Json]:
    """Returns the functions that a tool declares."""
    return items(get(tool, "functionDeclarations"))


_CONFIG = _rules(
    temperature=_within(0.0, 2.0),
    topP=_within(0.0, 1.0),
    topK=_positive,
    candidateCount=_within(1, 8),
    maxOutputTokens=_positive,
    stopSequences=_stop_sequences,
    responseMimeType=_mime_type,
    responseSchema=_response_schema,
    responseJsonSchema=_response_json_schema,
    thinkingConfig=_thinking,
)
_REQUEST = _rules(
    contents=_contents,
    systemInstruction=_content,
    generationConfig=_config,
    tools=_tools,
    toolConfig=_tool_config,
)
