"""`response_schema` given as a pydantic model, turned into the provider's schema dialect.

The provider takes a subset of OpenAPI 3.0: upper-case types, no `$ref`, `nullable` instead of a null
type, and a property ordering. Source: https://ai.google.dev/api/caching#Schema
"""

from __future__ import annotations

from typing import Any

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

    A pydantic model class is converted; anything else (a dict, an SDK `Schema`) passes as it is.
    Raises `InvalidRequest` for a class that is no pydantic model and for a recursive model.
    """
    if not isinstance(schema, type):
        return schema
    describe = getattr(schema, "model_json_schema", None)
    if describe is None:
        raise InvalidRequest(
            f"{schema.__name__} is not a pydantic model; give one, or a schema as a dict",
            field="config.response_schema",
        )
    document = describe()
    return _converted(document, document.get("$defs", {}), ())


def _converted(node: dict[str, Any], definitions: dict[str, Any], open_refs: tuple[str, ...]) -> dict[str, Any]:
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in open_refs:
            raise InvalidRequest(
                f"{name} contains itself, which the provider's schema cannot say",
                field="config.response_schema",
            )
        siblings = {k: v for k, v in node.items() if k != "$ref"}
        return _converted({**definitions[name], **siblings}, definitions, (*open_refs, name))
    if "allOf" in node and len(node["allOf"]) == 1:
        rest = {k: v for k, v in node.items() if k != "allOf"}
        return _converted({**node["allOf"][0], **rest}, definitions, open_refs)
    out = {k: v for k, v in node.items() if k in _KEPT}
    if "const" in node:
        out["enum"] = [node["const"]]
    if "anyOf" in node:
        options = [o for o in node["anyOf"] if o.get("type") != "null"]
        if len(options) < len(node["anyOf"]):
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
