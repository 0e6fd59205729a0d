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

import re
from collections.abc import Mapping
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

from lowtide.errors import InvalidRequest

LEVELS = 15
"""Objects within objects, the request itself being the first; a list is no level of its own."""
FIELDS = 10_000
"""Fields of one file, over all levels."""
KEYWORDS = 100_000
"""Keywords of one schema, its references replaced by what they name."""
GROUPS = 100
"""Groups of one batch, each of which needs jobs of its own."""

Schema: TypeAlias = "str | dict[str, Schema] | tuple[Schema, ...]"
"""Type of a field: a scalar's name, an object's fields, or a list's element (none while only empty ones were seen)."""
Shape: TypeAlias = "str | tuple[str | Shape, ...]"
"""All of a body but its values: what `fitted` says and which schema it has depend on nothing else."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
_RESERVED = (
    "_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier",
    "_change_sequence_number", "_change_type", "_change_timestamp",
)  # fmt: skip
_SCALARS: dict[type, str] = {str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}

# Names below are compared without letter case and underscores: `functionCall` and `function_call` are one field.
_DOCUMENTS = frozenset({"responseschema", "responsejsonschema", "parameters", "parametersjsonschema"})
"""Fields that hold a schema."""
_DATA = frozenset({("functioncall", "args"), ("functionresponse", "response"), ("parts", "partmetadata")})
"""Fields that hold any JSON, with the field they stand in."""
_ALIKE = frozenset({"responseschema", "responsejsonschema", "functiondeclarations"})
"""Fields below which the bodies of one group have the same names."""
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
        mended = _mended(given, "request", "")
        _inferred(mended, "request")
    except RecursionError:
        _refuse(_TOO_DEEP, "request")
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
            number = self._place(_inferred(body, "request"))
            self._known.remember(shape, number)
        return number

    def _place(self, schema: Schema) -> int:
        for number, group in enumerate(self._groups):
            try:
                merged = _merged(group, schema, "request", across=True)
            except _DiffersError:
                continue
            if merged is group or _fields(merged) <= FIELDS:
                self._groups[number] = merged
                return number
        if len(self._groups) >= self._limit:
            _refuse(
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
    scalar = _SCALARS.get(kind)
    if scalar is None:
        raise TypeError(f"{kind.__name__} is not plain JSON data")
    return scalar


def _pieces(shape: Shape) -> int:
    return 1 if isinstance(shape, str) else 1 + sum(map(_pieces, shape))


# Mending.


def _mended(value: Any, where: str, parent: str) -> Any:
    """A message of the provider's, without what says nothing."""
    if isinstance(value, list):
        return [_mended(inner, f"{where}[{index}]", parent) for index, inner in enumerate(value)]
    if not isinstance(value, dict):
        return value
    mended: dict[str, Any] = {}
    for name, inner in value.items():
        field, at = _folded(name), f"{where}.{name}"
        if (parent, field) in _DATA:
            kept = _without_nulls(inner)
        elif field in _DOCUMENTS or (parent, field) == ("functiondeclarations", "response"):
            kept = _Document(inner, at, in_json_schema="json" in field).mended()
        else:
            kept = _mended(inner, at, field)
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
                _refuse("a schema that contains itself, which Vertex AI's importer cannot take", f"{where}.$ref")
            if not isinstance(target, dict):
                _refuse(f"names no definition of this schema: {reference}", f"{where}.$ref")
            opened = (*opened, reference)
            beside = {name: inner for name, inner in node.items() if name != "$ref"}
            for name in beside.keys() & target.keys() - _ANNOTATIONS - _OVERRIDDEN:
                if beside[name] != target[name]:
                    _refuse(f"says otherwise than the {reference} it stands beside", f"{where}.{name}")
            node = {**target, **beside}
        mended: dict[str, Any] = {}
        for name, inner in node.items():
            if name in _ANNOTATIONS:
                continue
            field, at = _folded(name), f"{where}.{name}"
            if inner is None:
                if field == "const":
                    _refuse("a null, which Vertex AI's importer refuses; say it as a type", at)
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
            _refuse(f"more than {KEYWORDS:,} keywords, once its references are replaced by what they name", where)


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


# Inferring types, as the importer does.

_TOO_DEEP = f"nested deeper than the {LEVELS} levels that Vertex AI's importer takes"
_TOO_MANY = f"more than the {FIELDS:,} fields that Vertex AI's importer takes"


class _DiffersError(Exception):
    """Two schemas that cannot be one."""

    def __init__(self, where: str, one: Schema, other: Schema) -> None:
        both = isinstance(one, dict) and isinstance(other, dict)
        super().__init__(
            "other names, or the same in other letters, than an earlier element of the list has"
            if both
            else f"{_kind(other)}, where an earlier element of the list has {_kind(one)}"
        )
        self.where = where


def _inferred(body: Any, where: str) -> Schema:
    schema = _type(body, where, 0)
    if _fields(schema) > FIELDS:
        _refuse(_TOO_MANY, where)
    return schema


def _type(value: Any, where: str, levels: int) -> Schema:
    if isinstance(value, dict):
        if not value:
            _refuse("an empty object, which Vertex AI's importer refuses", where)
        if levels == LEVELS:
            _refuse(_TOO_DEEP, where)
        _check_names(value, where)
        return {name: _type(inner, f"{where}.{name}", levels + 1) for name, inner in value.items()}
    if isinstance(value, list):
        return _element(value, where, levels)
    if value is None:
        _refuse("a null, which Vertex AI's importer refuses", where)
    return _SCALARS[type(value)]


def _element(values: list[Any], where: str, levels: int) -> tuple[Schema, ...]:
    element: Schema | None = None
    for index, inner in enumerate(values):
        at = f"{where}[{index}]"
        if isinstance(inner, list):
            _refuse("a list in a list, which Vertex AI's importer cannot take", at)
        found = _type(inner, at, levels)
        try:
            element = found if element is None else _merged(element, found, at, across=False)
        except _DiffersError as difference:
            _refuse(
                f"{difference}; Vertex AI's importer takes one type for each field",
                difference.where,
            )
    return () if element is None else (element,)


def _check_names(value: dict[str, Any], where: str) -> None:
    seen: dict[str, str] = {}
    for name in value:
        lowered = name.lower()
        if not _NAME.fullmatch(name):
            _refuse(
                "no name for Vertex AI's importer, which takes at most 300 letters, digits and underscores, "
                "and no digit first",
                f"{where}.{name}",
            )
        if lowered.startswith(_RESERVED):
            _refuse("a name that Vertex AI's importer keeps for itself", f"{where}.{name}")
        if lowered in seen:
            _refuse(
                f"differs from {seen[lowered]} in letter case only, as Vertex AI's importer does not", f"{where}.{name}"
            )
        seen[lowered] = name


def _merged(one: Schema, other: Schema, where: str, *, across: bool, alike: bool = False) -> Schema:
    """The schema of what has the one and what has the other; `one` itself where the other adds nothing.

    `across` is whether they come from two requests, `alike` whether they must have the same names.
    """
    if one == other:
        return one
    if isinstance(one, tuple) and isinstance(other, tuple):
        if not one or not other:
            return one or other
        element = _merged(one[0], other[0], f"{where}[]", across=across, alike=alike)
        return one if element is one[0] else (element,)
    if not isinstance(one, dict) or not isinstance(other, dict) or (alike and one.keys() != other.keys()):
        raise _DiffersError(where, one, other)
    changed: dict[str, Schema] = {}
    for name, inner in other.items():
        known = one.get(name)
        if known is None:
            changed[name] = inner
        elif known != inner:
            same = alike or (across and _folded(name) in _ALIKE)
            merged = _merged(known, inner, f"{where}.{name}", across=across, alike=same)
            if merged is not known:
                changed[name] = merged
    if new := changed.keys() - one.keys():
        lowered = {name.lower() for name in one}
        for name in new:
            if name.lower() in lowered:
                raise _DiffersError(f"{where}.{name}", one, other)
    return one | changed if changed else one


def _fields(schema: Schema) -> int:
    if isinstance(schema, str):
        return 0
    if isinstance(schema, dict):
        return len(schema) + sum(map(_fields, schema.values()))
    return sum(map(_fields, schema))


def _kind(schema: Schema) -> str:
    if isinstance(schema, str):
        return f"a {schema}"
    return "an object" if isinstance(schema, dict) else "a list"


def _refuse(reason: str, field: str) -> NoReturn:
    raise InvalidRequest(reason, field=field)
