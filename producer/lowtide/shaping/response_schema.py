"""Turns a `response_schema` given as a pydantic model into the provider's schema dialect.

The provider takes a subset of OpenAPI 3.0: upper-case types, no `$ref`, `nullable` instead of a null
type, and a property ordering. Source: https://ai.google.dev/api/caching#Schema
"""

from __future__ import annotations

from typing import Any, NoReturn, get_origin

from pydantic import PydanticUserError, TypeAdapter

from lowtide.errors import InvalidRequest

_KEPT = frozenset(
    {
        "default",
        "description",
        "enum",
        "example",
        "format",
        "maximum",
        "maxItems",
        "maxLength",
        "maxProperties",
        "minimum",
        "minItems",
        "minLength",
        "minProperties",
        "nullable",
        "pattern",
        "propertyOrdering",
        "required",
        "title",
    }
)


def response_schema(schema: Any) -> Any:
    """Returns a response schema in the provider's form.

    It converts a pydantic model class, or a list or union of them, and returns anything else (a dict, an SDK `Schema`)
    as it is. Raises `InvalidRequest` for a class that is not a pydantic model, and for one that the provider's dialect
    cannot express: one that is recursive, has dicts or tuples, or has choices that are not strings.
    """
    try:
        if get_origin(schema) is not None:
            document = TypeAdapter(schema).json_schema()
        elif not isinstance(schema, type):
            return schema
        elif (describe := getattr(schema, "model_json_schema", None)) is not None:
            document = describe()
        else:
            _refuse(f"{schema.__name__} is not a pydantic model; give one, or a schema as a dict")
    except PydanticUserError as error:
        _refuse(f"cannot be turned into a JSON schema: {error.message}")
    return _converted(document, document.get("$defs", {}), ())


def _converted(node: dict[str, Any], definitions: dict[str, Any], open_refs: tuple[str, ...]) -> dict[str, Any]:
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in open_refs:
            _refuse(f"{name} contains itself, which the provider's schema cannot express")
        siblings = {k: v for k, v in node.items() if k != "$ref"}
        return _converted({**definitions[name], **siblings}, definitions, (*open_refs, name))
    if "allOf" in node and len(node["allOf"]) == 1:
        rest = {k: v for k, v in node.items() if k != "allOf"}
        return _converted({**node["allOf"][0], **rest}, definitions, open_refs)
    if node.get("additionalProperties") or "prefixItems" in node:
        _refuse(
            f"{node.get('title', 'it')} is a dict or a tuple, which the provider's schema cannot express; use a model"
        )
    out = {k: v for k, v in node.items() if k in _KEPT}
    if "const" in node:
        out["enum"] = [node["const"]]
    if not all(isinstance(choice, str) for choice in out.get("enum", ())):
        _refuse(
            f"{node.get('title', 'it')} has choices that are not strings, which the provider's schema cannot express"
        )
    if alternatives := node.get("anyOf") or node.get("oneOf"):
        options = [o for o in alternatives if o.get("type") != "null"]
        if len(options) < len(alternatives):
            out["nullable"] = True
        converted = [_converted(o, definitions, open_refs) for o in options]
        return {**converted[0], **out} if len(converted) == 1 else {**out, "anyOf": converted}
    if "type" in node:
        out["type"] = node["type"].upper()
    if "items" in node:
        out["items"] = _converted(node["items"], definitions, open_refs)
    if "properties" in node:
        out["properties"] = {
            name: _converted(inner, definitions, open_refs) for name, inner in node["properties"].items()
        }
        out["propertyOrdering"] = list(node["properties"])
    return out


def _refuse(reason: str) -> NoReturn:
    raise InvalidRequest(reason, field="config.response_schema")
