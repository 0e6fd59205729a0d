"""Removes what Vertex AI's importer rejects and no request needs: nulls, empty objects, references in schemas."""

from __future__ import annotations

from typing import Any

from lowtide.errors import refuse
from lowtide.shaping.vertex_import.types import folded

KEYWORDS = 100_000
"""Most keywords of one schema, after its references are replaced by their definitions."""

# Field names below are `folded`: without letter case and underscores.
_DOCUMENTS = frozenset({"responseschema", "responsejsonschema", "parameters", "parametersjsonschema"})
"""Fields that hold a schema."""
_DATA = frozenset({("functioncall", "args"), ("functionresponse", "response"), ("parts", "partmetadata")})
"""Fields that hold any JSON, each with the name of the field above it."""
_IDLE_OBJECTS = frozenset(
    {
        "args",
        "embedcontentconfig",
        "functioncallingconfig",
        "generationconfig",
        "labels",
        "retrievalconfig",
        "thinkingconfig",
        "toolconfig",
        "videometadata",
    }
)
"""Fields for which an empty object means the same as no field. For others, such as `googleSearch`, it does not."""
_SEARCH, _SEARCH_FIELD = "googlesearch", "timeRangeFilter"
"""A tool without fields, and the null that keeps it from being empty: Vertex AI has answered batches of that form."""
_IDLE_KEYWORDS = frozenset({"properties", "patternproperties", "dependentschemas", "additionalproperties"})
_IDLE_JSON_KEYWORDS = _IDLE_KEYWORDS | {"items"}  # the provider's own dialect requires the items of an array
_ANNOTATIONS = frozenset(
    {
        "$anchor",
        "$comment",
        "$defs",
        "$id",
        "$schema",
        "$vocabulary",
        "definitions",
        "deprecated",
        "examples",
        "readOnly",
        "writeOnly",
    }
)
_OVERRIDDEN = frozenset({"title", "description", "default"})
"""Keywords beside a reference that may differ from those of the definition, and replace them."""
_NAMED_SCHEMAS = frozenset({"properties", "patternproperties", "dependentschemas", "defs"})
_SUBSCHEMAS = frozenset(
    {
        "additionalproperties",
        "allof",
        "anyof",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "oneof",
        "prefixitems",
        "propertynames",
        "then",
    }
)


def cleaned(value: Any, where: str, parent: str = "") -> Any:
    """Returns part of a body without what has no meaning. Raises `InvalidRequest`.

    - `value`: plain JSON data.
    - `where`: its path in the body, for errors.
    - `parent`: the field that holds it, `folded`.
    """
    if isinstance(value, list):
        return [cleaned(inner, f"{where}[{index}]", parent) for index, inner in enumerate(value)]
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    for name, inner in value.items():
        field, at = folded(name), f"{where}.{name}"
        if (parent, field) in _DATA:
            kept = _without_nulls(inner)
        elif field in _DOCUMENTS or (parent, field) == ("functiondeclarations", "response"):
            kept = _Document(inner, at, in_json_schema="json" in field).resolved()
        else:
            kept = cleaned(inner, at, field)
            if kept == []:
                continue
            if kept == {} and parent == "tools":
                kept = _kept_by_null(field, inner)
        if kept is not None and not (kept == {} and field in _IDLE_OBJECTS):
            result[name] = kept
    return result


def _kept_by_null(field: str, tool: dict[str, Any]) -> dict[str, Any]:
    """Returns a tool that has no values with one field that is null, where one is known: its own, or a search's."""
    nulls = [name for name, value in tool.items() if value is None]
    if not nulls and field == _SEARCH:
        nulls = [_SEARCH_FIELD]
    return dict.fromkeys(nulls[:1])


def _without_nulls(value: Any) -> Any:
    """Returns a user's data without nulls: to the importer, a null field and a missing one are the same."""
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


class _Document:
    """A schema, whose references it replaces by their definitions and whose annotations it removes."""

    def __init__(self, root: Any, where: str, *, in_json_schema: bool) -> None:
        self._root = root
        self._where = where
        self._idle = _IDLE_JSON_KEYWORDS if in_json_schema else _IDLE_KEYWORDS
        self._left = KEYWORDS
        self._definitions: dict[str, Any] = {}
        if isinstance(root, dict):
            for place in ("definitions", "$defs"):
                named = root.get(place)
                if isinstance(named, dict):
                    self._definitions |= {f"#/{place}/{name}": inner for name, inner in named.items()}

    def resolved(self) -> Any:
        return self._schema(self._root, self._where, ())

    def _schema(self, node: Any, where: str, opened: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [self._schema(inner, f"{where}[{index}]", opened) for index, inner in enumerate(node)]
        if not isinstance(node, dict):
            return node
        while "$ref" in node:
            reference = node["$ref"]
            target = self._definitions.get(reference) if isinstance(reference, str) else None
            if reference == "#" or reference in opened:
                refuse("a schema that contains itself, which Vertex AI's importer does not take", f"{where}.$ref")
            if not isinstance(target, dict):
                refuse(f"refers to a definition that this schema does not have: {reference}", f"{where}.$ref")
            opened = (*opened, reference)
            beside = {name: inner for name, inner in node.items() if name != "$ref"}
            for name in beside.keys() & target.keys() - _ANNOTATIONS - _OVERRIDDEN:
                if beside[name] != target[name]:
                    refuse(
                        f"differs from the same keyword of {reference}, which is referenced beside it",
                        f"{where}.{name}",
                    )
            node = {**target, **beside}
        result: dict[str, Any] = {}
        for name, inner in node.items():
            if name in _ANNOTATIONS:
                continue
            field, at = folded(name), f"{where}.{name}"
            if inner is None:
                if field == "const":
                    refuse("a null, which Vertex AI's importer refuses; give null as a type", at)
                continue
            self._count(where)
            kept = self._keyword(field, inner, at, opened)
            if not ((kept == {} and field in self._idle) or (kept == [] and field == "required")):
                result[name] = kept
        return result

    def _keyword(self, field: str, value: Any, where: str, opened: tuple[str, ...]) -> Any:
        if field in _NAMED_SCHEMAS and isinstance(value, dict):
            named: dict[str, Any] = {}
            for name, inner in value.items():
                self._count(where)
                named[name] = self._schema(inner, f"{where}.{name}", opened)
            return named
        return self._schema(value, where, opened) if field in _SUBSCHEMAS else _without_nulls(value)

    def _count(self, where: str) -> None:
        """Counts a keyword. Nested references can grow without bound, so it stops at a limit."""
        self._left -= 1
        if self._left < 0:
            refuse(f"more than {KEYWORDS:,} keywords, after its references are replaced by their definitions", where)
