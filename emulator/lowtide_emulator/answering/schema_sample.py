"""A small value that is valid for a response schema.

It supports the OpenAPI subset of `responseSchema` and the plain part of JSON Schema. It gives a value to optional
properties too, and ignores keywords that it does not support.
"""

from __future__ import annotations

from typing import cast

from lowtide_emulator.wire import snake

Schema = dict[str, object]


def sample(schema: Schema, text: str) -> object:
    """Returns a value for `schema`; a string is `text`, or a value of its enum."""
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return cast("object", choices[len(text) % len(choices)])
    alternatives = _get(schema, "anyOf")
    if isinstance(alternatives, list) and alternatives:
        return sample(cast("Schema", alternatives[0]), text)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    match str(kind).lower():
        case "object":
            properties = cast("dict[str, Schema]", schema.get("properties") or {})
            return {name: sample(inner, text) for name, inner in properties.items()}
        case "array":
            items = cast("Schema", schema.get("items") or {})
            length = max(1, int(cast("int | str", _get(schema, "minItems") or 1)))
            return [sample(items, text) for _ in range(length)]
        case "integer":
            return int(_within(schema, len(text)))
        case "number":
            return float(_within(schema, len(text)))
        case "boolean":
            return len(text) % 2 == 0
        case "null":
            return None
        case _:
            longest = _get(schema, "maxLength")
            return text if longest is None else text[: int(cast("int | str", longest))]


def _get(schema: Schema, camel: str) -> object:
    return schema.get(camel, schema.get(snake(camel)))


def _within(schema: Schema, wanted: float) -> float:
    low, high = schema.get("minimum"), schema.get("maximum")
    if isinstance(high, int | float):
        wanted = min(wanted, high)
    if isinstance(low, int | float):
        wanted = max(wanted, low)
    return wanted
