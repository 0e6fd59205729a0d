"""The types that Vertex AI's importer infers for the fields of a file, as BigQuery does.

Source: https://cloud.google.com/bigquery/docs/schemas (names), https://cloud.google.com/bigquery/quotas (the rest).
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from lowtide.errors import refuse

LEVELS = 15
"""Most levels of nested objects. The request itself is the first; a list does not count as a level."""
FIELDS = 10_000
"""Most fields of one file, over all levels."""

Schema: TypeAlias = "str | dict[str, Schema] | tuple[Schema, ...]"
"""Type of a field: a scalar's name, an object's fields, or a list's element (none as long as all lists were empty)."""

NULL = "null"
"""Type of a field that is null, which agrees with every type."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
_RESERVED = (
    "__root__",
    "_change_sequence_number",
    "_change_timestamp",
    "_change_type",
    "_colidentifier",
    "_file_",
    "_partition",
    "_row_timestamp",
    "_table_",
)
"""Prefixes of names that BigQuery reserves."""
SCALARS: dict[type, str] = {str: "string", int: "number", float: "number", bool: "boolean", type(None): NULL}
_ALIKE = frozenset({"responseschema", "responsejsonschema", "functiondeclarations"})
"""Fields below which the bodies of one group have the same names."""
TOO_DEEP = f"nested deeper than the {LEVELS} levels that Vertex AI's importer takes"
_TOO_MANY = f"more than the {FIELDS:,} fields that Vertex AI's importer takes"


class DiffersError(Exception):
    """Raised where two schemas cannot be merged."""

    def __init__(self, where: str, one: Schema, other: Schema) -> None:
        both = isinstance(one, dict) and isinstance(other, dict)
        super().__init__(
            "an object with other names, or other letter case, than an earlier element of the list"
            if both
            else f"{_kind(other)}, while an earlier element of the list is {_kind(one)}"
        )
        self.where = where


def infer(body: Any, where: str) -> Schema:
    """Returns the types of a body's fields. Raises `InvalidRequest` for what the importer does not take."""
    schema = _type(body, where, 0)
    if count_fields(schema) > FIELDS:
        refuse(_TOO_MANY, where)
    return schema


def _type(value: Any, where: str, levels: int) -> Schema:
    if isinstance(value, dict):
        if not value:
            refuse("an empty object, which Vertex AI's importer refuses; give it a field, or leave it out", where)
        if [*value.values()] == [None]:
            return dict.fromkeys(value, NULL)  # the null is what keeps the object from being empty
        if levels == LEVELS:
            refuse(TOO_DEEP, where)
        _check_names(value, where)
        return {name: _type(inner, f"{where}.{name}", levels + 1) for name, inner in value.items()}
    if isinstance(value, list):
        return _element(value, where, levels)
    if value is None:
        refuse("a null, which Vertex AI's importer refuses", where)
    return SCALARS[type(value)]


def _element(values: list[Any], where: str, levels: int) -> tuple[Schema, ...]:
    element: Schema | None = None
    for index, inner in enumerate(values):
        at = f"{where}[{index}]"
        if isinstance(inner, list):
            refuse("a list in a list, which Vertex AI's importer does not take", at)
        found = _type(inner, at, levels)
        try:
            element = found if element is None else merge(element, found, at, across=False)
        except DiffersError as difference:
            refuse(
                f"{difference}; Vertex AI's importer takes one type for each field",
                difference.where,
            )
    return () if element is None else (element,)


def _check_names(value: dict[str, Any], where: str) -> None:
    seen: dict[str, str] = {}
    for name in value:
        lowered = name.lower()
        if not _NAME.fullmatch(name):
            refuse(
                "not a name that Vertex AI's importer takes: at most 300 letters, digits and underscores, "
                "no digit first",
                f"{where}.{name}",
            )
        if lowered.startswith(_RESERVED):
            refuse("a name that Vertex AI's importer reserves", f"{where}.{name}")
        if lowered in seen:
            refuse(
                f"differs from {seen[lowered]} only in letter case, which Vertex AI's importer ignores",
                f"{where}.{name}",
            )
        seen[lowered] = name


def merge(one: Schema, other: Schema, where: str, *, across: bool, alike: bool = False) -> Schema:
    """Returns a schema that covers two. It is `one` itself where `other` adds nothing. Raises `DiffersError`.

    - `where`: the field's path, for errors.
    - `across`: whether the schemas come from two requests.
    - `alike`: whether they must have the same names.
    """
    if one == other or other == NULL:
        return one
    if one == NULL:
        return other
    if isinstance(one, tuple) and isinstance(other, tuple):
        if not one or not other:
            return one or other
        element = merge(one[0], other[0], f"{where}[]", across=across, alike=alike)
        return one if element is one[0] else (element,)
    if not isinstance(one, dict) or not isinstance(other, dict) or (alike and one.keys() != other.keys()):
        raise DiffersError(where, one, other)
    changed: dict[str, Schema] = {}
    for name, inner in other.items():
        known = one.get(name)
        if known is None:
            changed[name] = inner
        elif known != inner:
            same = alike or (across and folded(name) in _ALIKE)
            merged = merge(known, inner, f"{where}.{name}", across=across, alike=same)
            if merged is not known:
                changed[name] = merged
    if new := changed.keys() - one.keys():
        lowered = {name.lower() for name in one}
        for name in new:
            if name.lower() in lowered:
                raise DiffersError(f"{where}.{name}", one, other)
    return one | changed if changed else one


def count_fields(schema: Schema) -> int:
    """Returns how many fields a schema has, over all levels."""
    if isinstance(schema, str):
        return 0
    if isinstance(schema, dict):
        return len(schema) + sum(map(count_fields, schema.values()))
    return sum(map(count_fields, schema))


def _kind(schema: Schema) -> str:
    if isinstance(schema, str):
        return f"a {schema}"
    return "an object" if isinstance(schema, dict) else "a list"


def folded(name: str) -> str:
    """Returns a name in lower case without underscores: `functionCall` and `function_call` are one field."""
    return name.replace("_", "").lower()
