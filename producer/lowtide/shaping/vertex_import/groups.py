"""Makes bodies acceptable to Vertex AI's importer, and finds which of them may share a file.

A batch's file on Cloud Storage goes through an importer like BigQuery's, and one line that it cannot take fails the
whole job. By users' reports it requires, over all lines of the file: one type for each field, at most 15 levels, names
that are valid column names, no empty objects, and no nulls. `fitted` makes a single body acceptable or refuses it;
`Schemas` groups the bodies that agree.

The other rules are precautions from BigQuery's documented limits: no list in a list, no names that differ only in
letter case, no reserved prefixes, at most 10,000 fields. One more precaution: the schemas of answers and of functions
have the same fields throughout a file. The importer gives each line the fields of all other lines, as nulls, and a null
among a schema's properties makes it another schema.

Source: https://cloud.google.com/bigquery/docs/schemas (names), https://cloud.google.com/bigquery/quotas (the rest).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeAlias, TypeVar

from lowtide.errors import refuse
from lowtide.shaping.vertex_import.cleanup import cleaned
from lowtide.shaping.vertex_import.types import (
    FIELDS,
    SCALARS,
    TOO_DEEP,
    DiffersError,
    Schema,
    count_fields,
    infer,
    merge,
)

GROUPS = 100
"""Most groups of one batch. Each needs jobs of its own."""

Shape: TypeAlias = "str | tuple[str | Shape, ...]"
"""The structure of a body without its values. The result of `fitted` and the schema depend on nothing else."""

_Value = TypeVar("_Value")


def fitted(body: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the body in the form that the importer takes, with the same meaning.

    It is the same object where nothing had to change. `body` is plain JSON data: the value of `request` in a line.

    Removed are nulls, empty lists, empty objects without a meaning, and annotations of schemas such as `$schema`.
    References in schemas are replaced by their definitions.

    Raises `InvalidRequest`, with the field, for what the importer refuses and cannot be changed without a change of
    meaning: an empty object with a meaning, a null in a list, fields of two types in one list, a list in a list, too
    many levels, a name that is not a valid column name.
    """
    given = body if isinstance(body, dict) else dict(body)
    try:
        shape = _shape(given)
        if shape in _fit:
            return given
        fit = cleaned(given, "request")
        infer(fit, "request")
    except RecursionError:
        refuse(TOO_DEEP, "request")
    if fit == given:
        _fit.remember(shape, value=None)
        return given
    return dict(fit)


class Schemas:
    """Groups the requests of a batch that may share a job: those whose fields have one type each.

    It holds the schemas of at most `limit` groups, and no requests.
    """

    def __init__(self, *, limit: int = GROUPS) -> None:
        self._limit = limit
        self._groups: list[Schema] = []
        self._known: _Known[int] = _Known()

    def __len__(self) -> int:
        return len(self._groups)

    def group(self, body: dict[str, Any]) -> int:
        """Returns the number (0-based) of the first group that a `fitted` body agrees with, and adds it to that group.

        The group's schema gets the body's fields. A body that agrees with no group starts a new one. Raises
        `InvalidRequest` where there would be too many groups.
        """
        shape = _shape(body)
        number = self._known.get(shape)
        if number is None:
            number = self._place(infer(body, "request"))
            self._known.remember(shape, number)
        return number

    def _place(self, schema: Schema) -> int:
        for number, group in enumerate(self._groups):
            try:
                merged = merge(group, schema, "request", across=True)
            except DiffersError:
                continue
            if merged is group or count_fields(merged) <= FIELDS:
                self._groups[number] = merged
                return number
        if len(self._groups) >= self._limit:
            refuse(
                f"with it, the batch would need more than {self._limit:,} groups of jobs, because Vertex AI takes one "
                "type for each field of a job; split the batch by response schema and tools",
                "request",
            )
        self._groups.append(schema)
        return len(self._groups) - 1


class _Known(Generic[_Value]):
    """A cache of answers by shape, in bounded memory.

    The answer for a shape never changes, so losing one costs only time.
    """

    _ENTRIES = 512
    _PIECES = 1_000

    def __init__(self) -> None:
        self._values: dict[Shape, _Value] = {}

    def __contains__(self, shape: Shape) -> bool:
        return shape in self._values

    def get(self, shape: Shape) -> _Value | None:
        return self._values.get(shape)

    def remember(self, shape: Shape, value: _Value) -> None:
        if _pieces(shape) > self._PIECES:
            return
        if len(self._values) >= self._ENTRIES:
            self._values.clear()
        self._values[shape] = value


_fit: _Known[None] = _Known()
"""Shapes of bodies that the importer takes as they are."""


def _shape(value: Any) -> Shape:
    kind = type(value)
    if kind is str:
        return "string"
    if kind is dict:
        return ("{", *value, *map(_shape, value.values()))
    if kind is list:
        return ("[", *dict.fromkeys(map(_shape, value)))
    scalar = SCALARS.get(kind)
    if scalar is None:
        raise TypeError(f"{kind.__name__} is not plain JSON data")
    return scalar


def _pieces(shape: Shape) -> int:
    return 1 if isinstance(shape, str) else 1 + sum(map(_pieces, shape))
