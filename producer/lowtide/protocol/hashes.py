"""Between a record and its Redis hash: the one place that knows how a field is written down.

A field that is absent or empty has its default, mostly None. A truth value is `1` or `0`, and what is neither text nor
a number is JSON. Fields that the record does not have are passed over: a newer version may have written them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from functools import cache, partial
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, get_args

import msgspec
import redis

from lowtide.budgets import Shortage
from lowtide.models import ResultError, Usage
from lowtide.protocol.file_parts import Collected, Part
from lowtide.protocol.records import PAID, BatchRecord, EntityRecord, JobRecord
from lowtide.states import Verdict

Record = TypeVar("Record", bound=EntityRecord)
Hash = Mapping[bytes, bytes]
_SHOWN_CHARS = 80
_MOST_DIGITS = 20
"""Of a whole number in Redis, with its sign."""
# Readers of fields are built at their first use, maybe in two threads at once, which must not build these types.
_built = [msgspec.json.Decoder(kind) for kind in (Collected, Part, ResultError, Shortage, Verdict)]
_SHOWN_ONLY: dict[type[EntityRecord], frozenset[str]] = {
    BatchRecord: frozenset(
        {
            *("labels", "error", "quarantined", "duplicates", "bytes", "reasons", "models", "cost", "delivery_failed"),
            *Usage.__struct_fields__,
            *PAID.values(),
        }
    ),
    JobRecord: frozenset({"polls", "surprise", "retried_by", "budgets", "reserved", "shortage", *PAID.values()}),
}
"""Fields that no stage decides by. One that is damaged is left out, and stops no work."""


class DamagedRecord(ValueError):
    """A hash that is not as any version of Lowtide writes it; the message names the field."""


DAMAGED = (DamagedRecord, redis.ResponseError)
"""Errors of reading a record: its hash is odd, or its key holds something else."""


class _Field(NamedTuple):
    name: str
    read: Callable[[bytes], Any]
    required: bool
    default: Any


def read_record(kind: type[Record], found: Hash) -> Record:
    """The record that a hash holds. Raises `DamagedRecord`."""
    fields, required = _fields(kind), _required(kind)
    values: dict[str, Any] = {}
    for name, value in found.items():
        if value and (field := fields.get(name)):
            try:
                values[field.name] = field.read(value)
            except (ValueError, RecursionError) as error:
                if field.name in _SHOWN_ONLY.get(kind, ()):
                    values[field.name] = _nothing(kind, field.name) if field.required else field.default
                    continue
                shown = _text(value)[:_SHOWN_CHARS]
                raise DamagedRecord(f"the field `{field.name}` of the record is {shown!r}: {error}") from error
    if missing := [name for name in required if name not in values]:
        raise DamagedRecord(f"the record has no field `{missing[0]}`")
    return kind(**values)


def salvage_record(kind: type[Record], found: Hash) -> Record:
    """Reads as much of a damaged record as it can. Unreadable required fields are 0 or empty: no stage may use it."""
    values: dict[str, Any] = {}
    for raw_name, field in _fields(kind).items():
        value = found.get(raw_name) or b""
        try:
            values[field.name] = field.read(value) if value or field.required else field.default
        except (ValueError, RecursionError):
            values[field.name] = _nothing(kind, field.name) if field.required else field.default
    return kind(**values)


def written_fields(change: Mapping[str, object]) -> list[str | bytes | int | float]:
    """Names and values of fields, one after the other, as a script or `HSET` takes them."""
    return [part for name, value in change.items() for part in (name, _written(value))]


def new_fields(
    kind: type[EntityRecord], new: Mapping[str, object], *, always: Collection[str]
) -> list[str | bytes | int | float]:
    """As `written_fields`, for a new record: fields with their default are left out, but for those in `always`."""
    known = _fields(kind)
    return written_fields(
        {
            name: value
            for name, value in new.items()
            if name in always or value not in (None, known[name.encode()].default)
        }
    )


def hash_pairs(flat: Iterable[bytes]) -> dict[bytes, bytes]:
    """A hash from the flat list that a script returns."""
    each = iter(flat)
    return dict(zip(each, each, strict=True))


def hash_reply(reply: Any) -> dict[bytes, bytes]:
    """A hash from the reply of a pipeline; raises the error that the reply may be."""
    if isinstance(reply, Exception):
        raise reply
    found: dict[bytes, bytes] = reply
    return found


def _written(value: object) -> str | bytes | int | float:
    match value:
        case None:
            return ""
        case bool():
            return int(value)
        case Enum():
            return str(value)
        case str() | bytes() | int() | float():
            return value
        case _:
            return msgspec.json.encode(value)


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _whole(value: bytes) -> int:
    # Python takes more than Redis and the scripts do, such as `1_000`.
    if not value.removeprefix(b"-").isdigit() or len(value) > _MOST_DIGITS:
        raise ValueError("not a whole number")
    return int(value)


def _finite(value: bytes) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _truth(value: bytes) -> bool:
    return bool(int(value))


def _member(kind: type[Enum], value: bytes) -> Enum:
    return kind(value.decode())


@cache
def _fields(kind: type[EntityRecord]) -> dict[bytes, _Field]:
    return {
        info.name.encode(): _Field(info.name, _reader(info.type), info.required, _default(info))
        for info in msgspec.structs.fields(kind)
    }


@cache
def _required(kind: type[EntityRecord]) -> tuple[str, ...]:
    return tuple(info.name for info in msgspec.structs.fields(kind) if info.required)


def _default(info: msgspec.structs.FieldInfo) -> Any:
    return info.default_factory() if info.default_factory is not msgspec.NODEFAULT else info.default


def _plain(declared: Any) -> Any:
    """A type without its None."""
    if isinstance(declared, UnionType):
        [declared] = [each for each in get_args(declared) if each is not NoneType]
    return declared


def _reader(declared: Any) -> Callable[[bytes], Any]:
    plain = _plain(declared)
    simple: dict[Any, Callable[[bytes], Any]] = {str: _text, bytes: bytes, bool: _truth, int: _whole, float: _finite}
    if plain in simple:
        return simple[plain]
    if isinstance(plain, type) and issubclass(plain, Enum):
        return partial(_member, plain)
    return msgspec.json.Decoder(plain).decode


def _nothing(kind: type[EntityRecord], name: str) -> Any:
    [declared] = [_plain(info.type) for info in msgspec.structs.fields(kind) if info.name == name]
    if isinstance(declared, type) and issubclass(declared, Enum):
        return next((each for each in declared if each.value == "unknown"), next(iter(declared)))
    return declared()
