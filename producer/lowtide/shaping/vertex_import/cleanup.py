"""Bodies without what Vertex AI's importer refuses although it says nothing: nulls, idle objects, references."""

from __future__ import annotations

from typing import Any

from lowtide.errors import refuse
from lowtide.shaping.vertex_import.types import folded

KEYWORDS = 100_000
"""Keywords of one schema, its references replaced by what they name."""

# Names below are `folded`.
_DOCUMENTS = frozenset({"responseschema", "responsejsonschema", "parameters", "parametersjsonschema"})
"""Fields that hold a schema."""
_DATA = frozenset({("functioncall", "args"), ("functionresponse", "response"), ("parts", "partmetadata")})
"""Fields that hold any JSON, with the field they stand in."""
_IDLE_OBJECTS = frozenset(
    {
        "generationconfig", "thinkingconfig", "labels", "toolconfig", "functioncallingconfig", "retrievalconfig",
        "args", "videometadata", "embedcontentconfig",
    }
)  # fmt: skip
"""Fields whose empty object says what leaving them out says. Of others, `googleSearch` above all, it does not."""
_IDLE_KEYWORDS = frozenset({"properties", "patternproperties", "dependentschemas", "additionalproperties"})
_IDLE_JSON_KEYWORDS = _IDLE_KEYWORDS | {"items"}  # the provider's own dialect asks for the items of an array
_ANNOTATIONS = frozenset(
    {
        "$schema", "$id", "$anchor", "$comment", "$vocabulary", "$defs", "definitions",
        "examples", "deprecated", "readOnly", "writeOnly",
    }
)  # fmt: skip
_OVERRIDDEN = frozenset({"title", "description", "default"})
"""Keywords that a schema may say anew beside a reference."""
_NAMED_SCHEMAS = frozenset({"properties", "patternproperties", "dependentschemas", "defs"})
_SUBSCHEMAS = frozenset(
    {
        "items", "prefixitems", "contains", "additionalproperties", "propertynames", "anyof", "oneof", "allof", "not",
        "if", "then", "else",
    }
)  # fmt: skip


def mend(value: Any, where: str, parent: str = "") -> Any:
    """A message of the provider's without what says nothing; `parent` is the field it stands in, `folded`.

    Raises `InvalidRequest`.
    """
    if isinstance(value, list):
        return [mend(inner, f"{where}[{index}]", parent) for index, inner in enumerate(value)]
    if not isinstance(value, dict):
        return value
    mended: dict[str, Any] = {}
    for name, inner in value.items():
        field, at = folded(name), f"{where}.{name}"
        if (parent, field) in _DATA:
            kept = _without_nulls(inner)
        elif field in _DOCUMENTS or (parent, field) == ("functiondeclarations", "response"):
            kept = _Document(inner, at, in_json_schema="json" in field).mended()
        else:
            kept = mend(inner, at, field)
            if kept == []:
                continue
        if kept is not None and not (kept == {} and field in _IDLE_OBJECTS):
            mended[name] = kept
    return mended


def _without_nulls(value: Any) -> Any:
    """A user's data: to the importer a field that is null and one that is not there are the same."""
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


class _Document:
    """A schema, with references replaced by what they name and without annotations."""

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

    def mended(self) -> Any:
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
                refuse("a schema that contains itself, which Vertex AI's importer cannot take", f"{where}.$ref")
            if not isinstance(target, dict):
                refuse(f"names no definition of this schema: {reference}", f"{where}.$ref")
            opened = (*opened, reference)
            beside = {name: inner for name, inner in node.items() if name != "$ref"}
            for name in beside.keys() & target.keys() - _ANNOTATIONS - _OVERRIDDEN:
                if beside[name] != target[name]:
                    refuse(f"says otherwise than the {reference} it stands beside", f"{where}.{name}")
            node = {**target, **beside}
        mended: dict[str, Any] = {}
        for name, inner in node.items():
            if name in _ANNOTATIONS:
                continue
            field, at = folded(name), f"{where}.{name}"
            if inner is None:
                if field == "const":
                    refuse("a null, which Vertex AI's importer refuses; say it as a type", at)
                continue
            self._count(where)
            kept = self._keyword(field, inner, at, opened)
            if not ((kept == {} and field in self._idle) or (kept == [] and field == "required")):
                mended[name] = kept
        return mended

    def _keyword(self, field: str, value: Any, where: str, opened: tuple[str, ...]) -> Any:
        if field in _NAMED_SCHEMAS and isinstance(value, dict):
            named: dict[str, Any] = {}
            for name, inner in value.items():
                self._count(where)
                named[name] = self._schema(inner, f"{where}.{name}", opened)
            return named
        return self._schema(value, where, opened) if field in _SUBSCHEMAS else _without_nulls(value)

    def _count(self, where: str) -> None:
        """References to references grow beyond all bounds: stop while it is still cheap."""
        self._left -= 1
        if self._left < 0:
            refuse(f"more than {KEYWORDS:,} keywords, once its references are replaced by what they name", where)
