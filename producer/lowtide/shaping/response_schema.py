"""Turns a response schema into the provider's dialect: from Python's types, and from JSON Schema.

The provider takes a subset of OpenAPI 3.0: upper-case types, choices that are strings, no `$ref`, `nullable` instead of
a null type, and a property ordering. Source: https://ai.google.dev/api/caching#Schema
"""

from __future__ import annotations

from enum import EnumMeta
from functools import lru_cache
from types import GenericAlias, UnionType
from typing import Any, Literal, get_origin

from pydantic import PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter

from lowtide.errors import refuse
from lowtide.shaping.json_schema import WORDS, Conversion, is_json_schema


def response_schema(schema: Any, where: str, words: frozenset[str] = WORDS) -> Any:
    """Returns a response schema in the provider's dialect.

    - `schema`: a type of Python that pydantic knows (a model, a dataclass, a TypedDict, an Enum, `str`, `list[X]`, a
      union), a JSON schema as a dict, or a schema in the provider's dialect. The last passes as it is, and so does an
      SDK object.
    - `where`: the path of the field, for errors.
    - `words`: the keywords that the provider's dialect has.

    References are replaced by their definitions. Constraints that the dialect lacks, as `multipleOf`, are left out.
    Raises `InvalidRequest` for a schema that the dialect cannot express: one that contains itself, choices of several
    types, and tuples of several types. Only Vertex AI's dialect has dicts.
    """
    if is_type(schema):
        name = schema.__name__ if isinstance(schema, type) else str(schema)
        return (_remembered if _is_hashable(schema) else _of_type)(schema, name, where, words)
    try:
        return Conversion(schema, where, words).converted() if is_json_schema(schema, words) else schema
    except RecursionError:
        refuse("nested too deeply; use fewer levels", where)


def _is_hashable(schema: Any) -> bool:
    try:
        hash(schema)
    except TypeError:
        return False
    return True


def is_type(schema: Any) -> bool:
    """Returns whether a schema is given as a type of Python."""
    return isinstance(schema, (type, GenericAlias, UnionType)) or get_origin(schema) is not None


def default_mime_type(schema: Any) -> str | None:
    """Returns the MIME type of answers to a schema that is given without one; None for a schema that is no type.

    The service takes a schema only beside a MIME type.
    Source: https://ai.google.dev/api/generate-content#GenerationConfig
    """
    if not is_type(schema):
        return None
    chosen = isinstance(schema, EnumMeta) or get_origin(schema) is Literal
    return "text/x.enum" if chosen else "application/json"


def _of_type(schema: Any, name: str, where: str, words: frozenset[str]) -> dict[str, Any]:
    try:
        document = TypeAdapter(schema).json_schema()
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        refuse(f"{name} cannot be turned into a JSON schema: {error.message}", where)
    except NameError as error:
        refuse(f"{name} cannot be turned into a JSON schema: {error}", where)
    if isinstance(schema, EnumMeta):
        document = {**document, "type": "string", "enum": _choices(schema, where)}
    if not document:
        refuse(f"{name} allows any value; give a model, or a schema as a dict", where)
    converted: dict[str, Any] = Conversion(document, where, words).converted()
    return converted


_remembered = lru_cache(maxsize=128)(_of_type)
"""`_of_type` for the types that many requests share. Unions of another order are equal, but their names differ."""


def _choices(enum: EnumMeta, where: str) -> list[str]:
    """Returns the values of an Enum as answers of the MIME type `text/x.enum` hold them."""
    values: list[Any] = [member.value for member in enum]  # type: ignore[var-annotated]
    if not values or not all(isinstance(value, (str, int)) for value in values):
        refuse(f"{enum.__name__} needs members, whose values are strings or integers", where)
    return [str(value) for value in values]
