"""Converts JSON Schema to the provider's dialect, a subset of OpenAPI 3.0: types in capitals, no references.

Source: https://ai.google.dev/api/caching#Schema (Developer API) and
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/Schema (Vertex AI).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lowtide.errors import refuse
from lowtide.shaping.fields import camel_case

WORDS = frozenset(
    {
        "anyOf",
        "default",
        "description",
        "enum",
        "example",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "nullable",
        "pattern",
        "properties",
        "propertyOrdering",
        "required",
        "title",
        "type",
    }
)
"""The keywords of the Developer API's dialect, in camelCase. It also takes them in snake_case."""
VERTEX_WORDS = WORDS | {"additionalProperties"}
"""The keywords of Vertex AI's dialect."""
KEYWORDS = 100_000
"""Most keywords of one schema, after its references are replaced by their definitions."""
_EXPANDED_BYTES = 20 << 20
"""Most bytes of the definitions that replace references: a short schema must not become a huge one."""

_CONVERTED = frozenset(
    {
        "$ref",
        "additionalProperties",
        "additional_properties",
        "allOf",
        "const",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "oneOf",
        "prefixItems",
        "prefix_items",
    }
)
_LEFT_OUT = frozenset(
    {
        "$anchor",
        "$comment",
        "$defs",
        "$id",
        "$schema",
        "$vocabulary",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "definitions",
        "deprecated",
        "discriminator",
        "examples",
        "multipleOf",
        "readOnly",
        "uniqueItems",
        "writeOnly",
    }
)
"""Annotations, and constraints without which a schema only allows more values."""
_REFUSED = frozenset(
    {
        "$dynamicRef",
        "additionalItems",
        "contains",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "if",
        "maxContains",
        "minContains",
        "not",
        "patternProperties",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
FOREIGN = _CONVERTED | _LEFT_OUT | _REFUSED
"""Keywords of JSON Schema that no dialect of the provider has in the same meaning."""
_SCHEMA = frozenset({"items", "additionalProperties", "additional_properties"})
"""Keywords whose value is a schema."""
_NAMED = "properties"
_SCHEMAS = _SCHEMA | {"anyOf", "any_of", _NAMED}
"""Keywords whose value is or holds schemas."""
_OF_TYPE = {
    "string": frozenset({"format", "maxLength", "minLength", "pattern"}),
    "number": frozenset({"exclusiveMaximum", "exclusiveMinimum", "format", "maximum", "minimum"}),
    "integer": frozenset({"exclusiveMaximum", "exclusiveMinimum", "format", "maximum", "minimum"}),
    "array": frozenset({"items", "maxItems", "minItems", "prefixItems"}),
    "object": frozenset(
        {"additionalProperties", "maxProperties", "minProperties", "properties", "propertyOrdering", "required"}
    ),
    "boolean": frozenset[str](),
}
"""Keywords that are about one type only."""
_ABOUT_ONE = frozenset[str]().union(*_OF_TYPE.values())
_BOUNDS = {"exclusiveMinimum": ("minimum", 1, max), "exclusiveMaximum": ("maximum", -1, min)}


def is_json_schema(node: Any, words: frozenset[str]) -> bool:
    """Returns whether a schema has a keyword or a value of JSON Schema that the provider's dialect does not have."""
    # Plain loops: every request with a schema passes here, and generators take three times as long.
    if not isinstance(node, (dict, Mapping)):
        return False
    for word, value in node.items():
        if word == "type":
            if value == "null" or not isinstance(value, str):
                return True
        elif word in FOREIGN and camel_case(word) not in words:
            return True
        elif word == "enum":
            if isinstance(value, list) and not all(isinstance(choice, str) for choice in value):
                return True
        elif word in _SCHEMAS:
            for inner in _inner(value) if word not in _SCHEMA else (value,):
                if is_json_schema(inner, words):
                    return True
    return False


def _inner(value: Any) -> Iterable[Any]:
    if isinstance(value, (dict, Mapping)):
        return value.values()
    return value if isinstance(value, list) else ()


class Conversion:
    """The conversion of one schema.

    - `document`: the schema, with its definitions.
    - `where`: its path in the request, for errors.
    - `words`: the keywords that the provider's dialect has.
    """

    def __init__(self, document: Mapping[str, Any], where: str, words: frozenset[str]) -> None:
        self._document = document
        self._where = where
        self._words = words
        self._left = KEYWORDS
        self._bytes_left = _EXPANDED_BYTES
        self._sizes: dict[str, int] = {}
        self._definitions: dict[str, Any] = {}
        for place in ("definitions", "$defs"):
            if isinstance(named := document.get(place), Mapping):
                self._definitions |= {f"#/{place}/{name}": inner for name, inner in named.items()}

    def converted(self) -> Any:
        """Returns the schema in the dialect. Raises `InvalidRequest` for what the dialect cannot express.

        Unknown keywords stay, so that the check of the whole request finds them.
        """
        return self._schema(self._document, self._where, ())

    def _schema(self, node: Any, where: str, opened: tuple[str, ...]) -> Any:
        if node is True:  # any value
            return {}
        if not isinstance(node, Mapping):
            return node
        node, opened = self._without_references(node, where, opened)
        node = _of_one_type({camel_case(str(word)): value for word, value in node.items()})
        out: dict[str, Any] = {}
        inner: dict[str, Any] = {}
        for word, value in node.items():
            self._left -= 1
            if self._left < 0:
                refuse(f"more than {KEYWORDS:,} keywords, after its references are replaced", self._where)
            inner |= self._keyword(node, word, value, out, f"{where}.{word}", opened)
        return {**inner, **out}

    def _count(self, reference: str, target: Mapping[str, Any], depth: int) -> None:
        """Counts a definition that replaces a reference. Raises `InvalidRequest` where a schema becomes too large."""
        if reference not in self._sizes:
            self._sizes[reference] = len(msgspec.json.encode(target, enc_hook=str))
        self._bytes_left -= self._sizes[reference]
        # A long chain of references costs the square of its length.
        self._left -= depth
        if self._left < 0 or self._bytes_left < 0:
            refuse(
                f"more than {KEYWORDS:,} keywords or {_EXPANDED_BYTES >> 20} MiB, after its references are replaced",
                self._where,
            )

    def _without_references(
        self, node: Mapping[str, Any], where: str, opened: tuple[str, ...]
    ) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        while "$ref" in node or "allOf" in node:
            if "$ref" in node:
                reference = node["$ref"]
                target = self._definitions.get(reference) if isinstance(reference, str) else None
                if reference == "#" or reference in opened:
                    name = str(reference).rpartition("/")[2]
                    refuse(f"{name} contains itself, which the provider's schema cannot express", where)
                if not isinstance(target, Mapping):
                    refuse(f"refers to a definition that this schema does not have: {reference}", f"{where}.$ref")
                self._count(reference, target, len(opened))
                opened = (*opened, reference)
                node = {**target, **{word: value for word, value in node.items() if word != "$ref"}}
            else:
                parts = node["allOf"]
                if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], Mapping):
                    refuse("the provider's schema cannot express it; write one object", f"{where}.allOf")
                node = {**parts[0], **{word: value for word, value in node.items() if word != "allOf"}}
        return node, opened

    def _keyword(
        self, node: Mapping[str, Any], word: str, value: Any, out: dict[str, Any], where: str, opened: tuple[str, ...]
    ) -> dict[str, Any]:
        """Puts a keyword into `out`. Returns the keywords of the only alternative, which those of `out` overrule."""
        if word in {"anyOf", "oneOf"} and isinstance(value, list):
            return self._alternatives(value, out, where, opened)
        if word in {"enum", "const"}:
            _put_choices(value if word == "enum" else [value], out, where)
        elif word == "type":
            out["type"] = value.upper() if isinstance(value, str) else value
        elif word == _NAMED and isinstance(value, Mapping):
            out[_NAMED] = {name: self._schema(inner, f"{where}.{name}", opened) for name, inner in value.items()}
            out.setdefault("propertyOrdering", list(value))
        elif word == "items":
            out["items"] = self._schema(value, where, opened)
        elif word == "prefixItems" and isinstance(value, list):
            self._put_tuple(value, out, where, opened)
        elif word == "additionalProperties":
            self._put_additional(value, out, where, opened)
        elif word in _BOUNDS:
            _put_bound(word, value, out, whole=node.get("type") == "integer")
        elif word in _REFUSED:
            refuse(
                f"the provider's schema has no {word}; leave it out, or give the whole as response_json_schema", where
            )
        elif word not in _LEFT_OUT and value is not None:
            out[word] = value
        return {}

    def _alternatives(
        self, value: list[Any], out: dict[str, Any], where: str, opened: tuple[str, ...]
    ) -> dict[str, Any]:
        found = [self._schema(option, f"{where}[{index}]", opened) for index, option in enumerate(value)]
        options = [option for option in found if option != _NULL]
        if len(options) < len(found):
            out["nullable"] = True
        if len(options) == 1 and isinstance(options[0], dict):
            return options[0]
        if options:
            out["anyOf"] = options
        return {}

    def _put_tuple(self, value: list[Any], out: dict[str, Any], where: str, opened: tuple[str, ...]) -> None:
        elements = [self._schema(inner, f"{where}[{index}]", opened) for index, inner in enumerate(value)]
        # The elements of a NamedTuple differ in their titles.
        elements = [_untitled(element) for element in elements]
        if any(element != elements[0] for element in elements):
            refuse("a tuple of several types, which the provider's schema cannot express; use a model", where)
        if elements:
            out.update(items=elements[0], minItems=len(elements), maxItems=len(elements))

    def _put_additional(self, value: Any, out: dict[str, Any], where: str, opened: tuple[str, ...]) -> None:
        if value is False or value is None:  # the dialect's objects are closed in any case
            return
        if "additionalProperties" not in self._words:
            refuse("a dict, which the provider's schema cannot express; use a model, or a list of pairs", where)
        out["additionalProperties"] = self._schema(value, where, opened) or True


def _untitled(node: Any) -> Any:
    return {word: value for word, value in node.items() if word != "title"} if isinstance(node, dict) else node


_NULL = {"nullable": True}
"""The dialect's form of a null type."""


def _of_one_type(node: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema whose `type` is one name: alternatives where it had several, and `nullable` for null."""
    types = node.get("type")
    if types == "null":
        types = ["null"]
    if not isinstance(types, list) or not types or not all(isinstance(name, str) for name in types):
        return node
    named = [name for name in types if name != "null"]
    rest = {word: value for word, value in node.items() if word != "type"}
    if len(named) < len(types):
        rest["nullable"] = True
    if len(named) == 1:
        return {"type": named[0], **rest}
    if named:
        rest["anyOf"] = [
            {"type": name, **{word: rest[word] for word in _OF_TYPE.get(name, ()) if word in rest}} for name in named
        ]
    return {word: value for word, value in rest.items() if word not in _ABOUT_ONE}


def _put_choices(value: Any, out: dict[str, Any], where: str) -> None:
    if not isinstance(value, list):
        out["enum"] = value
        return
    choices = [choice for choice in value if choice is not None]
    if len(choices) < len(value):
        out["nullable"] = True
    if not all(isinstance(choice, str) for choice in choices):
        refuse(
            "choices that are not strings, which the provider's schema cannot express; use strings, or numbers with "
            "a minimum and a maximum",
            where,
        )
    if choices:
        out["enum"] = choices
        out.setdefault("type", "STRING")


def _put_bound(word: str, value: Any, out: dict[str, Any], *, whole: bool) -> None:
    """Puts an exclusive bound of numbers: exactly for integers, without its exclusiveness for others."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return  # `true` belongs to the bound beside it
    name, step, tighter = _BOUNDS[word]
    bound = value + step if whole else value
    # Another bound that is no number stays for the check of the whole request.
    out[name] = tighter(out[name], bound) if isinstance(out.get(name), (int, float)) else out.get(name, bound)
