"""The importer of Vertex AI's batch prediction.

It loads JSON lines as BigQuery does: each key becomes a column, with the same type in all lines. A value that does not
fit fails the whole job before any row is answered. Only the columns are kept in memory.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-from-cloud-storage
"""

from __future__ import annotations

import re
from typing import cast

MAX_DEPTH = 15
MAX_COLUMNS = 10_000

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")

Record = dict[str, object]


class ImportRefused(Exception):
    """The importer cannot load a line; the message names the field and the reason."""


class Column:
    """The type of one key in all lines so far.

    kind: BOOLEAN, INTEGER, FLOAT, STRING or RECORD; None while all values are empty arrays.
    repeated: whether the values are arrays; None before the first value.
    present: the number of times that the key was present.
    records: the number of times that its value was an object.
    fields: the columns of a RECORD.
    """

    __slots__ = ("fields", "kind", "present", "records", "repeated")

    def __init__(self) -> None:
        self.kind: str | None = None
        self.repeated: bool | None = None
        self.present = 0
        self.records = 0
        self.fields: dict[str, Column] = {}

    @property
    def ragged(self) -> bool:
        """Whether an object of the column lacks a key that another one has."""
        return any(field.present < self.records or field.ragged for field in self.fields.values())


class Schema:
    """The columns of all lines so far, and the checks of the next."""

    def __init__(self) -> None:
        self.root = Column()
        self._columns = 0

    def add(self, row: Record) -> None:
        """Adds the types of a row's keys. Raises ImportRefused."""
        self._record(self.root, row, "", 0)

    def _record(self, column: Column, record: Record, path: str, depth: int) -> None:
        if not record and depth:
            raise ImportRefused(f"Unsupported empty struct type for field '{path}'")
        if depth > MAX_DEPTH:
            raise ImportRefused(f"Field '{path}' is nested more than {MAX_DEPTH} levels deep")
        column.records += 1
        for name, value in record.items():
            field = column.fields.get(name)
            if field is None:
                field = column.fields[name] = self._new(name, path)
            field.present += 1
            if type(value) is list:
                self._array(field, value, path, name, depth)
            else:
                self._value(field, value, path, name, depth, repeated=False)

    def _new(self, name: str, path: str) -> Column:
        if _NAME.fullmatch(name) is None:
            raise ImportRefused(
                f'Invalid field name "{_join(path, name)}". Fields must contain only letters, numbers, and '
                "underscores, start with a letter or underscore, and be at most 300 characters long"
            )
        self._columns += 1
        if self._columns > MAX_COLUMNS:
            raise ImportRefused(f"Too many columns: more than {MAX_COLUMNS}")
        return Column()

    def _array(self, field: Column, values: list[object], path: str, name: str, depth: int) -> None:
        if field.repeated is False:
            raise ImportRefused(f"Array specified for non-repeated field: {_join(path, name)}")
        field.repeated = True
        for value in values:
            if type(value) is list:
                raise ImportRefused(f"Nested arrays are not allowed: {_join(path, name)}")
            self._value(field, value, path, name, depth, repeated=True)

    def _value(self, field: Column, value: object, path: str, name: str, depth: int, *, repeated: bool) -> None:
        if value is None:
            if name in _NULLS:
                return
            raise ImportRefused(f"null is not allowed: field {_join(path, name)}")
        if field.repeated is None:
            field.repeated = repeated
        elif field.repeated is not repeated:
            raise ImportRefused(f"Expected an array for repeated field: {_join(path, name)}")
        kind = _KINDS[type(value)]
        if field.kind is None:
            field.kind = kind
        elif field.kind != kind:
            if {field.kind, kind} != {"INTEGER", "FLOAT"}:
                raise ImportRefused(
                    f"Could not convert value to {field.kind.lower()}. Field: {_join(path, name)}; it is {kind} here"
                )
            field.kind = "FLOAT"
        if kind == "RECORD":
            self._record(field, cast("Record", value), _join(path, name), depth + 1)


_NULLS = frozenset({"timeRangeFilter", "time_range_filter"})
"""Fields that real jobs had as null: in a search without fields, which is no empty object then."""
_KINDS: dict[type, str] = {str: "STRING", int: "INTEGER", float: "FLOAT", bool: "BOOLEAN", dict: "RECORD"}


def filled(value: object, column: Column) -> object:
    """Returns a value as the service returns it: with null for each key that only other rows have."""
    if isinstance(value, dict):
        whole: Record = {}
        for name, field in column.fields.items():
            if name in value:
                whole[name] = filled(value[name], field)
            else:
                whole[name] = [] if field.repeated else None
        return whole
    if isinstance(value, list):
        return [filled(item, column) for item in value]
    return value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
