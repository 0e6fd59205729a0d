"""`response_schema` given as a pydantic model, turned into the provider's schema dialect.

The provider takes a subset of OpenAPI 3.0: upper-case types, no `$ref`, `nullable` instead of a null
type, and a property ordering. Source: https://ai.google.dev/api/caching#Schema
"""

from __future__ import annotations

from typing import Any, NoReturn, get_origin

from pydantic import PydanticUserError, TypeAdapter

from lowtide.errors import InvalidRequest

_KEPT = frozenset(
    {
        "description", "enum", "format", "minimum", "maximum", "minItems", "maxItems", "minLength",
        "maxLength", "pattern", "required", "nullable", "default", "example", "title",
        "propertyOrdering", "minProperties", "maxProperties",
    }
)  # fmt: skip


def response_schema(schema: Any) -> Any:
    """The provider's form of a response schema.

    A pydantic model class is converted, and a list or union of them; anything else (a dict, an SDK `Schema`)
    passes as it is. Raises `InvalidRequest` for a class that is no pydantic model and for one that the
    provider's dialect cannot say: recursive, with dicts or tuples, with choices that are no strings.
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
        _refuse(f"no JSON schema can be made of it: {error.message}")
    return _converted(document, document.get("$defs", {}), ())


def _converted(node: dict[str, Any], definitions: dict[str, Any], open_refs: tuple[str, ...]) -> dict[str, Any]:
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in open_refs:
            _refuse(f"{name} contains itself, which the provider's schema cannot say")
        siblings = {k: v for k, v in node.items() if k != "$ref"}
        return _converted({**definitions[name], **siblings}, definitions, (*open_refs, name))
    if "allOf" in node and len(node["allOf"]) == 1:
        rest = {k: v for k, v in node.items() if k != "allOf"}
        return _converted({**node["allOf"][0], **rest}, definitions, open_refs)
    if node.get("additionalProperties") or "prefixItems" in node:
        _refuse(f"{node.get('title', 'it')} is a dict or a tuple, which the provider's schema cannot say; use a model")
    out = {k: v for k, v in node.items() if k in _KEPT}
    if "const" in node:
        out["enum"] = [node["const"]]
    if not all(isinstance(choice, str) for choice in out.get("enum", ())):
        _refuse(f"{node.get('title', 'it')} chooses between values that are no strings, which the provider cannot")
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
