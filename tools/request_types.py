"""Writes what the SDK's own types know of a request, so that producers can check one without importing the SDK.

    python tools/request_types.py          writes producer/lowtide/shaping/request_types.json
    python tools/request_types.py --check  ends with 1 if the file is not that of the installed SDK, or if the installed
                                           SDK has another version and knows something that the file does not

Source: `google.genai.types`, whose models are the SDK's statement of the REST API's fields, and the SDK's converters,
which say what one of the providers does not take.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import types
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from google import genai
from google.genai import batches, models
from google.genai import types as sdk
from pydantic import BaseModel

FILE = Path(__file__).parents[1] / "producer" / "lowtide" / "shaping" / "request_types.json"

_BESIDE = {"contents": "[Content]", "model": "string", "systemInstruction": "Content"}
"""Fields of a GenerateContentRequest that the SDK's `config` does not have, or has in another shape."""
_HOISTED = (
    "safety_settings",
    "tools",
    "tool_config",
    "labels",
    "cached_content",
    "service_tier",
    "store",
    "continuation_token",
    "model_armor_config",
)
"""Fields of the SDK's `config` that are beside `generationConfig` in a request."""
_SHAPED = {"tools": "[Tool]", "response_schema": "Schema", "speech_config": "SpeechConfig"}
"""Fields for which the SDK's `config` takes more than the wire does."""
_UNSENT = (
    "http_options",
    "should_return_http_response",
    "automatic_function_calling",
    "automatic_continuation",
    "system_instruction",
)
"""Fields of the SDK's `config` that it acts on itself, or that are listed above."""
_UNSENT_EMBEDDING = ("http_options", "mime_type")
"""Fields of the SDK's `EmbedContentConfig` that no batch takes."""
_WIRE_NAMES: dict[str, dict[str, str]] = {
    "GenerationConfig": {"modelConfig": "ModelSelectionConfig"},
    "GenerateContentRequest": {"outputConfig": "GenerationOutputConfig"},
}
"""Fields that the SDK's converters for Vertex AI give another name than the SDK's types have."""
_OFFSETS = {"startOffset": "duration", "endOffset": "duration"}
_NARROWER: dict[str, dict[str, str]] = {
    "AudioMetadata": _OFFSETS,
    "GenerationConfig": {
        "candidateCount": "int32",
        "maxOutputTokens": "int32",
        "logprobs": "int32",
        "seed": "int32",
    },
    "GenerationConfigRoutingConfigAutoRoutingMode": {"modelRoutingPreference": "ModelRoutingPreference"},
    "StreamableHttpTransport": {"timeout": "duration", "sseReadTimeout": "duration"},
    "ThinkingConfig": {"thinkingBudget": "int32"},
    "Transcription": _OFFSETS,
    "VideoMetadata": _OFFSETS,
    "VideoResponseFormat": {"duration": "duration"},
    "WordInfo": _OFFSETS,
}
"""Fields whose types are wider in the SDK than in the REST API's reference, https://ai.google.dev/api/generate-content."""
_ENUMS = {"ModelRoutingPreference": sdk.GenerationConfigRoutingConfigAutoRoutingMode}
"""Enums that the SDK has only as the values of the one field of a model."""
_NOT_IN_SCHEMA = ["additionalProperties", "defs", "ref"]
"""Of a Schema, the fields that the reference of the Developer API does not have, https://ai.google.dev/api/caching#Schema."""
_CONVERTERS = {"gemini": "_to_mldev", "vertex": "_to_vertex"}
"""Of each provider, the end of the names of the SDK's converters."""
_ROOTS = (sdk.Content, sdk.Tool, sdk.Schema, sdk.SpeechConfig)
_PLAIN = {str: "string", int: "int", float: "float", bool: "bool", bytes: "bytes", datetime: "time"}


def collected() -> dict[str, Any]:
    """Every type that a request may hold: for a model its fields, for an enum its names."""
    found: dict[str, Any] = {}
    waiting: list[type] = list(_ROOTS)

    def spec(annotation: Any) -> str:
        text, named = _spec(annotation)
        waiting.extend(named)
        return text

    config = sdk.GenerateContentConfig.model_fields
    embed = sdk.EmbedContentConfig.model_fields
    request = {_alias(config, name): _SHAPED.get(name) or spec(config[name].annotation) for name in _HOISTED}
    found["GenerateContentRequest"] = _BESIDE | request | {"generationConfig": "GenerationConfig"}
    found["GenerationConfig"] = {
        _alias(config, name): _SHAPED.get(name) or spec(field.annotation)
        for name, field in config.items()
        if name not in _HOISTED + _UNSENT
    } | {field.alias or name: spec(field.annotation) for name, field in sdk.GenerationConfig.model_fields.items()}
    found["EmbedContentConfig"] = {
        _alias(embed, name): spec(field.annotation) for name, field in embed.items() if name not in _UNSENT_EMBEDDING
    }
    found["EmbedContentRequest"] = {
        "content": "Content",
        "embedContentConfig": "EmbedContentConfig",
        **found["EmbedContentConfig"],
    }
    while waiting:
        one = waiting.pop()
        if one.__name__ in found:
            continue
        if issubclass(one, Enum):
            found[one.__name__] = [str(member.value) for member in one]
        elif issubclass(one, BaseModel):
            found[one.__name__] = {}
            found[one.__name__] = {
                field.alias or name: spec(field.annotation) for name, field in one.model_fields.items()
            }
    for name, fields in (*_WIRE_NAMES.items(), *_NARROWER.items()):
        found[name] |= fields
    for name, model in _ENUMS.items():
        (field,) = model.model_fields.values()
        found[name] = [value for kind in get_args(field.annotation) for value in get_args(kind)]
    refused = {provider: _refused(suffix, found) for provider, suffix in _CONVERTERS.items()}
    refused["gemini"] |= {"Schema": _NOT_IN_SCHEMA} | {name: [*fields] for name, fields in _WIRE_NAMES.items()}
    return {"sdk": genai.__version__, "refused": refused, "types": dict(sorted(found.items()))}


def _refused(suffix: str, found: Mapping[str, Any]) -> dict[str, list[str]]:
    """Of each type, the fields that the SDK's converter for one provider raises an error for."""
    refused: dict[str, list[str]] = {}
    for module in (batches, models):
        for function in ast.parse(inspect.getsource(module)).body:
            if not isinstance(function, ast.FunctionDef) or not function.name.endswith(suffix):
                continue
            name = function.name.removeprefix("_").removesuffix(suffix)
            for field in _raising(function):
                alias = getattr(sdk, name).model_fields[field].alias or field if name in found else ""
                if alias in found.get(name, ()) and alias not in refused.setdefault(name, []):
                    refused[name].append(alias)
    return {name: sorted(fields) for name, fields in sorted(refused.items()) if fields}


def _raising(function: ast.FunctionDef) -> Iterator[str]:
    """The fields of statements such as `if getv(from_object, ['method']) is not None: raise ValueError(...)`."""
    for statement in function.body:
        if isinstance(statement, ast.If) and isinstance(statement.body[0], ast.Raise):
            read = re.fullmatch(r"getv\(from_object, \['(\w+)'\]\) is not None", ast.unparse(statement.test))
            if read:
                yield read[1]


def _alias(fields: Any, name: str) -> str:
    return fields[name].alias or name


def _spec(annotation: Any) -> tuple[str, list[type]]:
    """A type in the file's notation, with the named types in it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _spec(arguments[0])
    if origin in {Union, types.UnionType}:
        inner = [one for one in arguments if one is not type(None)]
        return _spec(inner[0]) if len(inner) == 1 else ("any", [])
    if origin is list:
        text, named = _spec(arguments[0])
        return f"[{text}]", named
    if origin is dict:
        text, named = _spec(arguments[1])
        return f"{{{text}}}", named
    if origin is Literal:
        return "string", []
    if annotation in _PLAIN:
        return _PLAIN[annotation], []
    if isinstance(annotation, type) and issubclass(annotation, (BaseModel, Enum)):
        return annotation.__name__, [annotation]
    return "any", []


def lines(content: dict[str, Any]) -> Iterator[str]:
    """The file: a type a line, so that a new SDK's changes can be read."""
    yield f'{{"sdk": "{content["sdk"]}", "refused": {{'
    yield ",\n".join(f'"{name}": {json.dumps(fields)}' for name, fields in content["refused"].items())
    yield '}, "types": {'
    last = len(content["types"]) - 1
    for index, (name, fields) in enumerate(content["types"].items()):
        yield f'"{name}": {json.dumps(fields)}' + ("," if index < last else "")
    yield "}}"


def unknown(known: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """The fields and the values of enums that the file does not have."""
    return [f"{name}.{part}" for name, parts in found.items() for part in parts if part not in known.get(name, ())]


def problem(content: dict[str, Any]) -> str | None:
    """The reason why the file must be written anew."""
    file = json.loads(FILE.read_text())
    if file["sdk"] == content["sdk"]:
        return None if file == content else f"{FILE.name} is not that of google-genai {content['sdk']}"
    # The older versions of the range know less, and producers check requests for all of them by one file.
    more = unknown(file["types"], content["types"])
    return f"{FILE.name} does not know these of google-genai {content['sdk']}: {', '.join(more)}" if more else None


def main() -> None:
    content = collected()
    if "--check" in sys.argv:
        sys.exit(problem(content))
    FILE.write_text("\n".join(lines(content)) + "\n")


if __name__ == "__main__":
    main()
