"""A small value that is valid for a response schema.

It supports the OpenAPI subset of `responseSchema` and the part of JSON Schema that the service documents, with
references. It gives a value to optional properties too, and ignores keywords that it does not support.

Source: https://ai.google.dev/gemini-api/docs/structured-output
"""

from __future__ import annotations

from typing import Any, cast

from lowtide_emulator.wire import snake

Schema = dict[str, object]

MAX_DEPTH = 6
"""References inside of each other; the service unrolls a cycle to a limited degree too."""
FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "duration": "PT1H",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "someone@example.com",
    "uri": "https://example.com/",
}
"""Strings of the formats that a validator checks."""


def sample(schema: Schema, text: str) -> object:
    """Returns a value for `schema`; a string is `text`, or a value of its enum.

    Raises ValueError for a reference that leads nowhere, or back to itself in a required place.
    """
    return _Sampler(schema, text).value(schema, 0)


class _Endless(ValueError):
    """A value contains a value of its own schema, and so on."""


class _Sampler:
    def __init__(self, root: Schema, text: str) -> None:
        self._root = root
        self._text = text

    def value(self, schema: object, depth: int) -> object:
        if not isinstance(schema, dict):
            return self._text
        reference = schema.get("$ref", schema.get("ref"))
        if isinstance(reference, str):
            if depth >= MAX_DEPTH:
                raise _Endless(f"the reference {reference!r} is endless")
            return self.value(self._referred(reference), depth + 1)
        if "const" in schema:
            return schema["const"]
        choices = schema.get("enum")
        if isinstance(choices, list) and choices:
            return cast("object", choices[len(self._text) % len(choices)])
        for keyword in ("anyOf", "oneOf", "allOf"):
            alternatives = _get(schema, keyword)
            if isinstance(alternatives, list) and alternatives:
                return self._first(alternatives, depth)
        return self._of_type(schema, depth)

    def _first(self, alternatives: list[object], depth: int) -> object:
        for place, alternative in enumerate(alternatives, 1):
            try:
                return self.value(alternative, depth)
            except _Endless:
                if place == len(alternatives):
                    raise
        return None

    def _of_type(self, schema: Schema, depth: int) -> object:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = next((name for name in kind if name != "null"), "null")
        match str(kind).lower():
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer":
                return int(_within(schema, len(self._text), 1))
            case "number":
                return float(_within(schema, len(self._text), 0.5))
            case "boolean":
                return len(self._text) % 2 == 0
            case "null":
                return None
            case _:
                return self._string(schema)

    def _object(self, schema: Schema, depth: int) -> object:
        properties = cast("dict[str, Any]", schema.get("properties") or {})
        required = cast("list[str]", schema.get("required") or [])
        found: dict[str, object] = {}
        for name, inner in properties.items():
            try:
                found[name] = self.value(inner, depth)
            except _Endless:
                if name in required:
                    raise
        others = _get(schema, "additionalProperties")
        if not properties and isinstance(others, dict):
            found["key"] = self.value(others, depth)
        return found

    def _array(self, schema: Schema, depth: int) -> object:
        first = [self.value(inner, depth) for inner in cast("list[object]", _get(schema, "prefixItems") or [])]
        least = _count(schema, "minItems") or 0
        most = _count(schema, "maxItems")
        length = max(least, 1 if most is None else min(1, most)) - len(first)
        try:
            return first + [self.value(schema.get("items"), depth) for _ in range(length)]
        except _Endless:
            if least > len(first):
                raise
            return first

    def _string(self, schema: Schema) -> str:
        text = FORMATS.get(str(schema.get("format")), self._text)
        longest = _count(schema, "maxLength")
        return text.ljust(_count(schema, "minLength") or 0, ".")[:longest]

    def _referred(self, reference: str) -> object:
        found: object = self._root
        steps = reference.removeprefix("#").strip("/").split("/") if reference != "#" else []
        # The service also takes the bare name of a definition.
        if not reference.startswith("#"):
            steps = ["$defs" if "$defs" in self._root else "defs", *steps]
        for step in steps:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        if found is None:
            raise ValueError(f"the reference {reference!r} leads nowhere")
        return found


def _get(schema: Schema, camel: str) -> object:
    return schema.get(camel, schema.get(snake(camel)))


def _count(schema: Schema, camel: str) -> int | None:
    found = _get(schema, camel)
    return None if found is None else int(cast("int | str", found))


def _within(schema: Schema, wanted: float, step: float) -> float:
    high, low = schema.get("maximum"), schema.get("minimum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if isinstance(below, int | float):
        wanted = min(wanted, below - step)
    if isinstance(high, int | float):
        wanted = min(wanted, high)
    if isinstance(above, int | float):
        wanted = max(wanted, above + step)
    if isinstance(low, int | float):
        wanted = max(wanted, low)
    return wanted
