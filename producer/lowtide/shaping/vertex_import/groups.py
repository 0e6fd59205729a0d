"""What the importer of Vertex AI takes, and which requests may lie in one file for it.

A batch's file on Cloud Storage goes through an importer like BigQuery's, and one line that it cannot take fails the
whole job. It is reported to want, over all lines of the file: one type for each field, at most 15 levels, names that
are column names, no empty object, no null. `fitted` brings a single body there or refuses it; `Schemas` says which
bodies agree.

What goes beyond those reports is caution, taken from BigQuery's documented limits: no list in a list, no names that
differ in letter case only, no reserved prefixes, 10,000 fields. So is that schemas of answers and of functions have the
same fields throughout a file: the importer gives every line the fields of all the others, as nulls, and a null among a
schema's properties is another schema.

Source: https://cloud.google.com/bigquery/docs/schemas (names), https://cloud.google.com/bigquery/quotas (the rest).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeAlias, TypeVar

from lowtide.errors import refuse
from lowtide.shaping.vertex_import.cleanup import mend
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
"""Groups of one batch, each of which needs jobs of its own."""

Shape: TypeAlias = "str | tuple[str | Shape, ...]"
"""All of a body but its values: what `fitted` says and which schema it has depend on nothing else."""

_Value = TypeVar("_Value")


def fitted(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body as the importer takes it, with the same meaning; the same object where nothing had to be mended.

    `body` is plain JSON data, what stands under `request` in a line. Left out are nulls, empty lists and objects that
    say nothing, and from schemas `$schema` and the like; references in schemas are replaced by what they name. Raises
    `InvalidRequest`, with the field, for what the importer refuses and cannot be mended: an empty object that means
    something by being there, a null in a list, fields of two types in one list, a list in a list, too many levels, a
    name that is no column's.
    """
    given = body if isinstance(body, dict) else dict(body)
    try:
        shape = _shape(given)
        if shape in _fit:
            return given
        mended = mend(given, "request")
        infer(mended, "request")
    except RecursionError:
        refuse(TOO_DEEP, "request")
    if mended == given:
        _fit.remember(shape, value=None)
        return given
    return dict(mended)


class Schemas:
    """Which requests of a batch may share a job: those whose fields have one type each.

    Holds the schemas of at most `limit` groups and nothing of the requests.
    """

    def __init__(self, *, limit: int = GROUPS) -> None:
        self._limit = limit
        self._groups: list[Schema] = []
        self._known: _Known[int] = _Known()

    def __len__(self) -> int:
        return len(self._groups)

    def group(self, body: dict[str, Any]) -> int:
        """Takes a body that is `fitted`, and gives the number of the first group (0-based) that it agrees with.

        The group takes over the fields of the body. Where it agrees with none it begins a new one. Raises
        `InvalidRequest` where there would be too many.
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
                f"has fields of yet another type or schema: the batch would need more than {self._limit:,} groups of "
                "jobs, as Vertex AI takes one type for each field of a job; split it by response schema and tools",
                "request",
            )
        self._groups.append(schema)
        return len(self._groups) - 1


class _Known(Generic[_Value]):
    """What is known of the shapes seen last, in bounded memory.

    A shape's answer never changes, so that forgetting it costs time alone.
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
