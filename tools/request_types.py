"""Writes what the SDK's own types know of a request, so that producers can check one without importing the SDK.

    python tools/request_types.py          writes producer/lowtide/shaping/request_types.json
    python tools/request_types.py --check  ends with 1 if the file is not that of the installed SDK, or if the installed
                                           SDK has another version and knows something that the file does not

Source: `google.genai.types`, whose models are the SDK's statement of the REST API's fields.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from google import genai
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
_WIRE_NAMES: dict[str, dict[str, str]] = {
    "GenerationConfig": {"modelConfig": "ModelSelectionConfig"},
    "GenerateContentRequest": {"outputConfig": "any"},
    "ImageConfig": {"imageOutputOptions": "{any}"},
}
"""Fields that the SDK's converters for Vertex AI give another name than the SDK's types have."""
_ROOTS = (sdk.Content, sdk.Tool, sdk.Schema, sdk.SpeechConfig)
_PLAIN = {str: "string", int: "int", float: "float", bool: "bool", bytes: "bytes"}


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
        _alias(embed, name): spec(field.annotation) for name, field in embed.items() if name != "http_options"
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
    for name, fields in _WIRE_NAMES.items():
        found[name] |= fields
    return {"sdk": genai.__version__, "types": dict(sorted(found.items()))}


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
    if annotation in _PLAIN:
        return _PLAIN[annotation], []
    if isinstance(annotation, type) and issubclass(annotation, (BaseModel, Enum)):
        return annotation.__name__, [annotation]
    return "any", []


def lines(content: dict[str, Any]) -> Iterator[str]:
    """The file: a type a line, so that a new SDK's changes can be read."""
    yield f'{{"sdk": "{content["sdk"]}", "types": {{'
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
