"""The check of a row against the messages of an API, to the last field, as the service's JSON parser does it.

The parser is strict about names and types, but takes several spellings of one value: fields in camelCase and in
snake_case, numbers as text, enums in any letter case and as numbers, base64 in both alphabets, a single value for a
list, and null for an absent field.

Source: https://protobuf.dev/programming-guides/json/ and https://google.aip.dev/193
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import cast

import msgspec
from msgspec import Raw

from lowtide_emulator.wire.messages import BOTH, DEVELOPER, ENUMS, VERTEX
from lowtide_emulator.wire.proto_json import snake

Check = Callable[[object], None]

SHOWN = 200
"""The most characters of a wrong value in a message."""
TOO_DEEP = "Message too deep. Max recursion depth reached."

_FIELD = re.compile(r"(repeated |map |)([\w]+) (\w+)")
_ONEOF = re.compile(r"oneof (\w+) \{([^}]*)\}")
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_DURATION = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?s")
_STANDARD = str.maketrans("-_", "+/")
_FLOATS = ("NaN", "Infinity", "-Infinity")
_decode = msgspec.json.Decoder().decode


class WireError(Exception):
    """A value that is not of its message.

    unknown: the name of the field, if the message has no such field.
    reason: the rest of the service's text.
    """

    def __init__(self, reason: str, *, unknown: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unknown = unknown
        self._steps: list[str] = []

    def inside(self, step: str) -> WireError:
        """Adds the field around the place, or a position in a list; returns the error."""
        self._steps.append(step)
        return self

    @property
    def path(self) -> str:
        """The place of the value, or of the message that lacks the field: `contents[0].parts[0]`."""
        return ".".join(reversed(self._steps)).replace(".[", "[")

    def in_call(self) -> str:
        """Returns the text for a value in the body of a call, or in a row of Vertex AI."""
        place = f" at '{self.path}'" if self.path else ""
        if self.unknown is not None:
            return f'Invalid JSON payload received. Unknown name "{self.unknown}"{place}: {self.reason}'
        return f"Invalid value{place} {self.reason}"

    def in_line(self) -> str:
        """Returns the text for a value in a line of a file, which another parser reads."""
        if self.unknown is not None and self.reason == _NO_FIELD:
            return f"no such field: '{self.unknown}'" + (f" at '{self.path}'" if self.path else "")
        return self.in_call()


_NO_FIELD = "Cannot find field."
_NO_LIST = "Proto field is not repeating, cannot start list."


class _Field:
    """A field of a message.

    name: its name in paths.
    check: the check of its values.
    takes_list: whether its value may be a list.
    oneof: the group of fields that it belongs to, of which one may be set.
    """

    __slots__ = ("check", "name", "oneof", "takes_list")

    def __init__(self, name: str, check: Check, oneof: str | None, *, takes_list: bool) -> None:
        self.name = name
        self.check = check
        self.oneof = oneof
        self.takes_list = takes_list


class _Message:
    """A message of one API. Its fields are added later, because messages refer to each other."""

    __slots__ = ("fields", "kind")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.fields: dict[str, _Field] = {}

    def check(self, value: object) -> None:
        """Raises WireError for a value that is not an object of this message."""
        if type(value) is not dict:
            raise _wrong(self.kind, value)
        chosen: dict[str, str] | None = None
        fields = self.fields
        for name, inner in value.items():
            field = fields.get(name)
            if field is None:
                raise WireError(_NO_FIELD, unknown=name)
            if inner is None:
                continue
            if type(inner) is list and not field.takes_list:
                raise WireError(_NO_LIST, unknown=name)
            try:
                field.check(inner)
            except WireError as error:
                raise error.inside(field.name) from None
            if field.oneof is not None:
                chosen = {} if chosen is None else chosen
                if chosen.setdefault(field.oneof, name) != name:
                    raise WireError(f"(oneof), oneof field '{field.oneof}' is already set. Cannot set '{name}'")


class ApiTypes:
    """The messages of one API.

    package: the package of the API's messages, as its errors name it.
    tables: the tables of `messages` that hold for it.
    """

    def __init__(self, package: str, *tables: Mapping[str, str]) -> None:
        names = [name for table in tables for name in table]
        self._kinds: dict[str, Check] = dict(_SCALARS)
        for name, values in ENUMS.items():
            self._kinds[name] = _enum(f"type.googleapis.com/{package}.{name}", values.split())
        self._messages = {name: _Message(f"type.googleapis.com/{package}.{name}") for name in names}
        self._kinds |= {name: message.check for name, message in self._messages.items()}
        for table in tables:
            for name, text in table.items():
                self._add(self._messages[name], text)

    def check(self, message: str) -> Check:
        """Returns the check for values of a message."""
        return self._messages[message].check

    def _add(self, message: _Message, text: str) -> None:
        for oneof, fields in _ONEOF.findall(text):
            self._add_fields(message, fields, oneof)
        self._add_fields(message, _ONEOF.sub("", text), None)

    def _add_fields(self, message: _Message, text: str, oneof: str | None) -> None:
        for label, kind, name in _FIELD.findall(text):
            check = self._kinds[kind]
            if label:
                check = _repeated(check) if label == "repeated " else _map(check)
            takes_list = label == "repeated " or kind == "Value"
            field = _Field(snake(name), check, oneof, takes_list=takes_list)
            message.fields[name] = message.fields[field.name] = field


def _wrong(kind: str, value: object, reason: str = "") -> WireError:
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
    return WireError(f"({kind}), {reason}{shown}")


# The checks of scalar values


def _string(value: object) -> None:
    if type(value) is not str:
        raise _wrong("TYPE_STRING", value)


def _bool(value: object) -> None:
    if type(value) is not bool:
        raise _wrong("TYPE_BOOL", value)


def _whole(kind: str, bits: int) -> Check:
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def check(value: object) -> None:
        number = value
        if (isinstance(number, str) and _INTEGER.fullmatch(number)) or (
            isinstance(number, float) and number.is_integer()
        ):
            number = int(number)
        if type(number) is not int or not least <= number <= most:
            raise _wrong(kind, value)

    return check


def _real(kind: str) -> Check:
    def check(value: object) -> None:
        if type(value) is float or type(value) is int:
            return
        try:
            if type(value) is str and (value in _FLOATS or value.strip() == value):
                float(value)
                return
        except ValueError:
            pass
        raise _wrong(kind, value)

    return check


def _bytes(value: object) -> None:
    if type(value) is not str:
        raise _wrong("TYPE_BYTES", value)
    text = value.rstrip("=")
    if "-" in text or "_" in text:
        text = text.translate(_STANDARD)
    try:
        binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        raise _wrong("TYPE_BYTES", value, "Base64 decoding failed for ") from None


def _any(value: object) -> None:
    pass


def _struct(value: object) -> None:
    if type(value) is not dict:
        raise _wrong("type.googleapis.com/google.protobuf.Struct", value)


def _duration(value: object) -> None:
    if type(value) is not str or not _DURATION.fullmatch(value):
        raise _wrong(
            "type.googleapis.com/google.protobuf.Duration",
            value,
            "Illegal duration format; it must end with 's': ",
        )


def _timestamp(value: object) -> None:
    try:
        if datetime.fromisoformat(cast("str", value)).tzinfo is not None:
            return
    except (TypeError, ValueError):
        pass
    raise _wrong("type.googleapis.com/google.protobuf.Timestamp", value, "Invalid time format: ")


_SCALARS: dict[str, Check] = {
    "string": _string,
    "bool": _bool,
    "int32": _whole("TYPE_INT32", 32),
    "int64": _whole("TYPE_INT64", 64),
    "float": _real("TYPE_FLOAT"),
    "double": _real("TYPE_DOUBLE"),
    "bytes": _bytes,
    "Value": _any,
    "Struct": _struct,
    "Duration": _duration,
    "Timestamp": _timestamp,
}


def _enum(kind: str, values: list[str]) -> Check:
    known = frozenset(values) | {value.upper() for value in values}

    def check(value: object) -> None:
        if type(value) is str:
            if value in known or value.upper().replace("-", "_") in known or value.isdecimal():
                return
        elif type(value) is int:
            return
        raise _wrong(kind, value)

    return check


# The checks of fields


def _repeated(check: Check) -> Check:
    def checked(value: object) -> None:
        if type(value) is not list:
            check(value)
            return
        for index, inner in enumerate(value):
            try:
                check(inner)
            except WireError as error:
                raise error.inside(f"[{index}]") from None

    return checked


def _map(check: Check) -> Check:
    def checked(value: object) -> None:
        if type(value) is not dict:
            raise _wrong("map", value)
        for index, inner in enumerate(value.values()):
            try:
                check(inner)
            except WireError as error:
                raise error.inside("value").inside(f"[{index}]") from None

    return checked


DEVELOPER_TYPES = ApiTypes("google.ai.generativelanguage.v1beta", BOTH, DEVELOPER)
VERTEX_TYPES = ApiTypes("google.cloud.aiplatform.v1beta1", BOTH, VERTEX)


class RequestChecker:
    """A check for requests of one message."""

    def __init__(self, types: ApiTypes, message: str) -> None:
        self._check = types.check(message)

    def problem(self, request: bytes | Raw) -> str | None:
        """Returns the problem of a request as JSON; None if it is valid."""
        try:
            self._check(_decode(request))
        except WireError as error:
            return error.in_call()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return f"Invalid JSON payload received. {error}"
        except RecursionError:
            return TOO_DEEP
        return None
