"""Output of the machine's provider: the rows of a job, well or not."""

from __future__ import annotations

import base64
from enum import StrEnum

import msgspec

from lowtide.models import ResultError
from lowtide.protocol import wire_ordinal
from lowtide_worker.providers import NO_RESPONSE

_PART = 4
"""Characters of a part of an answer."""
_FOREIGN_KEY = "r0.000000000000"
_encode = msgspec.json.encode


class Row(StrEnum):
    """The outcome of a job for one request."""

    OK = "ok"
    BLOCKED = "blocked"
    REFUSED = "refused"
    FLAKY = "flaky"
    MISSING = "missing"
    TWICE = "twice"
    FOREIGN = "foreign"
    BROKEN = "broken"
    PARTIAL = "partial"


FINAL = frozenset({Row.OK, Row.BLOCKED, Row.REFUSED, Row.TWICE})
"""Rows that give the request its result, whatever attempt it was."""


class Line(msgspec.Struct, frozen=True):
    """A line of output."""

    key: str | None
    response: msgspec.Raw = NO_RESPONSE
    error: ResultError | None = None


def token_of(at: int) -> str:
    """The token with which an answer goes on at this character."""
    return base64.b64encode(b"%d" % at).decode()


def place_of(token: str | None) -> int:
    """The character at which an answer goes on: that of a token, or the first."""
    return 0 if token is None else int(base64.b64decode(token))


def lines_of(wire: str, prompt: str, row: Row, at: int = 0) -> list[bytes]:
    """The lines of one request, whose answer is its prompt from the character `at` on."""
    match row:
        case Row.MISSING:
            return []
        case Row.BROKEN:
            return [b'{"key": broken\n']
        case Row.FLAKY:
            return [_encode(Line(wire, error=error_of("INTERNAL", "try again", 13))) + b"\n"]
        case Row.REFUSED:
            return [_encode(Line(wire, error=error_of("INVALID_ARGUMENT", "never", 3))) + b"\n"]
    reason = "SAFETY" if row is Row.BLOCKED else "STOP"
    candidate = {"content": {"parts": [{"text": prompt[at:]}]}, "finishReason": reason}
    if row is Row.PARTIAL and at + _PART < len(prompt):
        more = {"finishReason": "CONTINUATION", "continuationToken": token_of(at + _PART)}
        candidate = {"content": {"parts": [{"text": prompt[at : at + _PART]}]}, **more}
    answer = {"candidates": [candidate], "usageMetadata": {"totalTokenCount": 1}}
    line = _encode(Line(_FOREIGN_KEY if row is Row.FOREIGN else wire, msgspec.Raw(_encode(answer)))) + b"\n"
    return [line, line] if row is Row.TWICE else [line]


def ordinal_of(wire: str) -> int:
    """The ordinal of a request by its wire key."""
    ordinal = wire_ordinal(wire)
    assert ordinal is not None, f"{wire} is no wire key"
    return ordinal


def error_of(reason: str, message: str, code: int | None = None) -> ResultError:
    """Errors in the provider's words."""
    return ResultError(reason=reason, message=message, code=code)
