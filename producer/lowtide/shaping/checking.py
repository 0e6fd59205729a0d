"""Checks a request against the provider's types, to the last field.

One malformed line makes the provider refuse a whole job, so nothing is left for it to find. The types are those of the
SDK (`request_types.json`, written by `tools/request_types.py`); the SDK itself is not imported. A sound request passes
one decoder; only a request that it refuses is walked to find each problem and its field.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import logging
import math
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from lowtide.errors import refuse
from lowtide.shaping.fields import nearest
from lowtide.shaping.json_schema import FOREIGN
from lowtide.shaping.paths import as_given
from lowtide.shaping.request_types import DURATION, ONE_OF, PLAIN, ROOTS, Types, types_of
from lowtide.states import Kind, ProviderName, UnknownFields

log = logging.getLogger(__name__)

_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})
_ALPHABET = str.maketrans("-_", "+/")
_INT32 = 1 << 31
_NEAR = 0.8
"""Likeness of a misspelt name to the known one, between 0 and 1."""
_SHOWN_CHARS = 60
_MOST_WARNINGS = 100
"""Most fields of one batch that are warned of."""
_UPLOADED = re.compile(rb'"(fileUri|file_uri)":"(?:https://generativelanguage\.googleapis\.com/[^"]*/)?files/[^"]*"')
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"-?[0-9]{1,20}")


class Problem(NamedTuple):
    """One thing that the provider would refuse, or that these types do not know."""

    path: str
    """Of the field, from the request on: `generationConfig.temperature`, `tools[0].functionDeclarations[2].name`."""
    reason: str
    spared: UnknownFields | None = None
    """The setting from which on it is sent in spite of it: WARN where a newer model may know it, PASS where it rather
    is a mistake. None: it is always refused."""


class RequestCheck:
    """Checks the requests of one batch, by its setting for unknown fields."""

    def __init__(self, provider: ProviderName, kind: Kind, unknown_fields: UnknownFields) -> None:
        types_of(provider)  # built here, and not in the middle of the first request
        self._provider = provider
        self._kind = kind
        self._sent = _SENT[unknown_fields]
        self._warns = unknown_fields is UnknownFields.WARN
        self._warned: set[str] = set()

    def __call__(self, item: object, body: bytes) -> None:
        """Raises `InvalidRequest` for the first problem of a request.

        - `item`: the request as the user gave it, whose shape decides how a field is called in the error.
        - `body`: the GenerateContentRequest or EmbedContentRequest that was made of it, as JSON.
        """
        for path, reason, spared in problems(body, self._kind, self._provider):
            if spared not in self._sent:
                refuse(reason, as_given(item, path))
            if self._warns:
                self._warn(as_given(item, path), f"{reason}; sent as it is (LOWTIDE_UNKNOWN_FIELDS)")
        if b"files/" in body and (found := _UPLOADED.search(body)):
            self._warn(
                found[1].decode(),
                "names an uploaded file, which the Developer API deletes 48 hours after its upload, even if the "
                "request still waits; upload it right before you submit",
            )

    def _warn(self, field: str, reason: str) -> None:
        """Logs a field once for all requests of the batch."""
        name = re.sub(r"\[[0-9]+\]", "[]", field)
        if name not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add(name)
            log.warning("%s: %s", name, reason)


_SENT: dict[UnknownFields, frozenset[UnknownFields | None]] = {
    UnknownFields.REFUSE: frozenset(),
    UnknownFields.WARN: frozenset({UnknownFields.WARN}),
    UnknownFields.PASS: frozenset({UnknownFields.WARN, UnknownFields.PASS}),
}


def problems(body: bytes, kind: Kind = Kind.GENERATION, provider: ProviderName = ProviderName.GEMINI) -> list[Problem]:
    """Returns the problems of a request of a kind as JSON; an empty list where the provider would take it.

    Forms that the service accepts although the types do not say so (numbers as text, base64 in its URL form) are no
    problem.
    """
    types = types_of(provider)
    try:
        types.decode[kind](body)
    except msgspec.ValidationError:
        return list(_Walk(types, provider).problems(msgspec.json.decode(body), ROOTS[kind], ""))
    return []


class _Walk:
    """The way through a request that its types refuse, to each problem."""

    def __init__(self, types: Types, provider: ProviderName) -> None:
        self._types = types
        self._only_the_other = _ONLY_THE_OTHER[provider]

    def problems(self, value: Any, of: str, path: str) -> Iterator[Problem]:
        """Yields the problems of a value.

        - `of`: its type, in the notation of `request_types.json`.
        - `path`: its place in the request.
        """
        if value is None:
            return
        if of.startswith("["):
            if not isinstance(value, list):
                yield _expected("a list", value, path)
                return
            for index, inner in enumerate(value):
                yield from self._inner(inner, of[1:-1], f"{path}[{index}]")
        elif of.startswith("{"):
            if not isinstance(value, dict):
                yield _expected("an object", value, path)
                return
            for name, inner in value.items():
                yield from self._inner(inner, of[1:-1], f"{path}.{name}")
        elif of in PLAIN:
            if found := _problem_of_plain(value, of, path):
                yield found
        elif isinstance(known := self._types.known[of], list):
            if found := _problem_of_enum(value, known, path):
                yield found
        else:
            yield from self._of_object(value, of, known, path)

    def _inner(self, value: Any, of: str, path: str) -> Iterator[Problem]:
        """A value in a list or a map, where null is no absent field."""
        if value is None and of != "any":
            yield _expected("a value", value, path)
        yield from self.problems(value, of, path)

    def _of_object(self, value: Any, of: str, known: dict[str, str], path: str) -> Iterator[Problem]:
        if not isinstance(value, dict):
            yield _expected("an object", value, path)
            return
        lost = bool(value) and not value.keys() & known.keys()
        refused = self._types.refused.get(of, ())
        chosen = [name for name in value if name in ONE_OF.get(of, ()) and value[name] is not None]
        if len(chosen) > 1:
            yield Problem(f"{path}.{chosen[1]}", f"{chosen[0]} is there too; give one of them")
        for name, inner in value.items():
            at = f"{path}.{name}" if path else name
            if name in refused:  # also as null: a service refuses a name that it does not know, whatever its value
                yield Problem(at, self._only_the_other, UnknownFields.PASS)
            elif (inner_of := known.get(name)) is not None:
                yield from self.problems(inner, inner_of, at)
            elif of == "Schema" and name in FOREIGN:
                yield Problem(at, _OF_JSON_SCHEMA, UnknownFields.PASS)
            else:
                hint = self._hint(name, known)
                # An object of which nothing is known would reach the provider as an empty one.
                spared = UnknownFields.PASS if hint or lost or of in _SETTLED else UnknownFields.WARN
                yield Problem(at, f"unknown field of {_article(of)}{hint}", spared)

    def _hint(self, name: str, known: dict[str, str]) -> str:
        """Returns the meaning that a name may have: another field of the same object, or one that belongs elsewhere."""
        if near := nearest(name, known):
            return f"; did you mean {near}?"
        beside = [field for of, field in _PLACES.items() if name in self._types.known[of]]
        return f"; it belongs beside {beside[0]}" if beside else ""


_PLACES = {"GenerationConfig": "temperature", "GenerateContentRequest": "tools"}
"""Of a type, a field that is beside all others in both shapes that users write."""
_SETTLED = frozenset(ROOTS.values())
"""Types to which newer models add nothing: an unknown field is rather a mistake."""
_ONLY_THE_OTHER = {
    ProviderName.GEMINI: "only Vertex AI knows this field",
    ProviderName.VERTEX: "only the Gemini Developer API knows this field",
}
_OF_JSON_SCHEMA = (
    "a keyword of JSON Schema, which this schema does not have; give the schema as parametersJsonSchema or "
    "responseJsonSchema"
)


def _article(of: str) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", of).lower()
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _problem_of_plain(value: Any, of: str, path: str) -> Problem | None:
    match of:
        case "string":
            return None if isinstance(value, str) else _expected("a string", value, path)
        case "bool":
            return None if isinstance(value, bool) else _expected("true or false", value, path)
        case "int":
            return None if _is_integer(value) else _expected("an integer", value, path)
        case "int32":
            if not _is_integer(value):
                return _expected("an integer", value, path)
            return None if -_INT32 <= int(value) < _INT32 else _expected("an integer of 32 bits", value, path)
        case "duration":
            sound = isinstance(value, str) and re.fullmatch(DURATION, value) is not None
            return None if sound else _expected('seconds as "1.5s"', value, path)
        case "float":
            return None if _is_number(value) else _expected("a number", value, path)
        case "time":
            sound = isinstance(value, str) and _TIME.fullmatch(value) is not None
            return None if sound else _expected("a time such as 2026-01-01T00:00:00Z", value, path)
        case "bytes":
            return _problem_of_bytes(value, path)
    return None


def _is_integer(value: Any) -> bool:
    if isinstance(value, str):
        return _INTEGER.fullmatch(value) is not None
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        try:
            return value in _NUMBERS or (_NUMBER.fullmatch(value) is not None and math.isfinite(float(value)))
        except ValueError:
            return False
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return False
    return not isinstance(value, bool) and isinstance(value, (int, float))


def _problem_of_bytes(value: Any, path: str) -> Problem | None:
    if not isinstance(value, str):
        return _expected("base64", value, path)
    if value.startswith("data:"):
        return Problem(path, "a data: URL; give only the base64 after its comma, and its type as mimeType")
    if re.search(r"\s", value):
        return Problem(path, "not base64: it has line ends or spaces; encode it without them")
    try:
        text = value.rstrip("=").translate(_ALPHABET)
        base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        return Problem(path, f"not base64: {error}")
    return None


def _problem_of_enum(value: Any, known: list[str], path: str) -> Problem | None:
    if not isinstance(value, str):
        return _expected(f"a name such as {known[1 % len(known)]}", value, path)
    names = {name.upper(): name for name in known}
    if value.upper() in names:
        return None
    near = difflib.get_close_matches(value.upper(), names, n=1, cutoff=_NEAR)
    if near:
        return Problem(path, f"unknown value {_shown(value)}; did you mean {names[near[0]]}?", UnknownFields.PASS)
    return Problem(path, f"unknown value {_shown(value)}; known are {', '.join(known[:12])}", UnknownFields.WARN)


def _expected(what: str, value: Any, path: str) -> Problem:
    return Problem(path, f"expected {what}, got {_shown(value)}")


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"
