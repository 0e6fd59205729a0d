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
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import msgspec

from lowtide.errors import refuse
from lowtide.shaping.paths import as_given
from lowtide.states import Kind, UnknownFields

log = logging.getLogger(__name__)

_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})
_ALPHABET = str.maketrans("-_", "+/")
_NEAR = 0.8
"""Likeness of a misspelt name to the known one, between 0 and 1."""
_SHOWN_CHARS = 60
_MOST_WARNINGS = 100
"""Most fields of one batch that are warned of."""
_UPLOADED = re.compile(rb'"(fileUri|file_uri)":"(?:https://generativelanguage\.googleapis\.com/[^"]*/)?files/[^"]*"')
_INTEGER = re.compile(r"-?[0-9]{1,20}")


class Problem(NamedTuple):
    """One thing that the provider would refuse, or that these types do not know."""

    path: str
    """Of the field, from the request on: `generationConfig.temperature`, `tools[0].functionDeclarations[2].name`."""
    reason: str
    unknown: bool = False
    """Whether a newer model may know it: a field or an enum's value that is no misspelt known one."""


class RequestCheck:
    """Checks the requests of one batch, by its setting for unknown fields."""

    def __init__(self, kind: Kind, unknown_fields: UnknownFields) -> None:
        _types()  # built here, once in a process, and not in the middle of the first request
        self._kind = kind
        self._unknown_fields = unknown_fields
        self._warned: set[str] = set()

    def __call__(self, item: object, body: bytes) -> None:
        """Raises `InvalidRequest` for the first problem of a request.

        - `item`: the request as the user gave it, whose shape decides how a field is called in the error.
        - `body`: the GenerateContentRequest or EmbedContentRequest that was made of it, as JSON.
        """
        for path, reason, unknown in problems(body, self._kind):
            if not unknown or self._unknown_fields is UnknownFields.REFUSE:
                refuse(reason, as_given(item, path))
            if self._unknown_fields is UnknownFields.WARN:
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


def problems(body: bytes, kind: Kind = Kind.GENERATION) -> list[Problem]:
    """Returns the problems of a request of a kind as JSON; an empty list where it has none.

    Forms that the service accepts although the types do not say so (numbers as text, base64 in its URL form) are no
    problem.
    """
    types = _types()
    try:
        types.DECODERS[kind](body)
    except msgspec.ValidationError:
        return list(_problems_of(msgspec.json.decode(body), types.ROOTS[kind], ""))
    return []


def _types() -> ModuleType:
    # Its import builds a decoder of 130 types. Python imports a module once, whichever thread comes first.
    from lowtide.shaping import request_types

    return request_types


def _problems_of(value: Any, of: str, path: str) -> Iterator[Problem]:
    if value is None:
        return
    if of.startswith("["):
        if not isinstance(value, list):
            yield _expected("a list", value, path)
            return
        for index, inner in enumerate(value):
            if inner is None:
                yield _expected("a value", inner, f"{path}[{index}]")
            yield from _problems_of(inner, of[1:-1], f"{path}[{index}]")
    elif of.startswith("{"):
        if not isinstance(value, dict):
            yield _expected("an object", value, path)
            return
        for name, inner in value.items():
            yield from _problems_of(inner, of[1:-1], f"{path}.{name}")
    elif of in _types().PLAIN:
        if found := _problem_of_plain(value, of, path):
            yield found
    elif isinstance(known := _types().KNOWN[of], list):
        if found := _problem_of_enum(value, known, path):
            yield found
    else:
        yield from _problems_of_object(value, of, known, path)


def _problems_of_object(value: Any, of: str, known: dict[str, str], path: str) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield _expected("an object", value, path)
        return
    lost = bool(value) and not value.keys() & known.keys()
    for name, inner in value.items():
        at = f"{path}.{name}" if path else name
        if (inner_of := known.get(name)) is not None:
            yield from _problems_of(inner, inner_of, at)
            continue
        near = _nearest(name, known)
        hint = f"; did you mean {near}?" if near else ""
        # An object of which nothing is known would reach the provider as an empty one.
        yield Problem(at, f"unknown field of {_article(of)}{hint}", unknown=not near and not lost)


def _nearest(name: str, known: dict[str, str]) -> str | None:
    """The known field that a name is a misspelling of, in camelCase."""
    plain = {field.lower(): field for field in known if "_" not in field}
    found = difflib.get_close_matches(name.replace("_", "").replace("-", "").lower(), plain, n=1, cutoff=_NEAR)
    return plain[found[0]] if found else None


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
        case "float":
            return None if _is_number(value) else _expected("a number", value, path)
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
            return value in _NUMBERS or (float(value), value.strip() == value)[1]
        except ValueError:
            return False
    return not isinstance(value, bool) and isinstance(value, (int, float))


def _problem_of_bytes(value: Any, path: str) -> Problem | None:
    if not isinstance(value, str):
        return _expected("base64", value, path)
    if value.startswith("data:"):
        return Problem(path, "a data: URL; give only the base64 after its comma, and its type as mimeType")
    try:
        text = value.rstrip("=").translate(_ALPHABET)
        base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        return Problem(path, f"not base64: {error}")
    return None


def _problem_of_enum(value: Any, known: list[str], path: str) -> Problem | None:
    if not isinstance(value, str):
        return _expected("a name", value, path)
    names = {name.upper(): name for name in known}
    if value.upper() in names:
        return None
    near = difflib.get_close_matches(value.upper(), names, n=1, cutoff=_NEAR)
    if near:
        return Problem(path, f"unknown value {_shown(value)}; did you mean {names[near[0]]}?")
    return Problem(path, f"unknown value {_shown(value)}; known are {', '.join(known[:12])}", unknown=True)


def _expected(what: str, value: Any, path: str) -> Problem:
    return Problem(path, f"expected {what}, got {_shown(value)}")


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"
