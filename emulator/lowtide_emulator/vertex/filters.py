"""The `filter` of a list call: a small part of Google's AIP-160.

Supported terms:

- `display_name`, `model_display_name` and `state` with `=` and `!=`, `display_name` also with `:` and `*`
- `create_time` and `update_time` with all comparisons
- `labels.k=v`, `labels.k!=v` and `labels.k:*`

`AND`, `OR`, `NOT` and parentheses combine terms. As in AIP-160, `OR` binds more strongly than `AND`.

Source: https://google.aip.dev/160
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from operator import eq, ge, gt, le, lt, ne


@dataclass(frozen=True)
class Listed:
    """The fields of a job that a filter can use; times in seconds since the epoch."""

    display_name: str
    state: str
    create_time: float
    update_time: float
    labels: dict[str, str]


Filter = Callable[[Listed], bool]


class FilterError(ValueError):
    """A filter is not valid; the message names the position."""


_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<operator><=|>=|!=|=|<|>|:)
      | (?P<paren>[()])
      | (?P<minus>-(?=[A-Za-z(]))
      | (?P<word>[^\s"'<>=!:()]+(?::(?=\d)[^\s()]*)*)
    )""",
    re.VERBOSE,
)
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def parse_filter(text: str) -> Filter:
    """Parses a filter. Raises FilterError."""
    if not text.strip():
        return lambda _: True
    reader = _Reader(text)
    found = reader.all_of()
    reader.end()
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str, int]] = []
        self._next = 0
        place = 0
        end = len(text.rstrip())
        while place < end:
            match = _TOKEN.match(text, place)
            if match is None:
                raise FilterError(f"unexpected {text[place:].strip()[:20]!r} at position {place}")
            self._tokens.append((str(match.lastgroup), match[0].strip(), place))
            place = match.end()

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next][:2] if self._next < len(self._tokens) else ("end", "")

    def _take(self, kind: str) -> str:
        found, token = self._peek()
        if found != kind:
            raise FilterError(f"expected a {kind}, found {token or 'the end'!r}")
        self._next += 1
        return token

    def _skip(self, *tokens: str) -> bool:
        kind, token = self._peek()
        if kind in ("word", "paren", "minus") and token in tokens:
            self._next += 1
            return True
        return False

    def end(self) -> None:
        if self._next < len(self._tokens):
            raise FilterError(f"unexpected {self._peek()[1]!r}")

    def all_of(self) -> Filter:
        parts = [self._any_of()]
        while self._peek()[0] != "end" and self._peek()[1] != ")":
            # Two terms without an operator between them are joined by AND.
            self._skip("AND")
            parts.append(self._any_of())
        return lambda job: all(part(job) for part in parts)

    def _any_of(self) -> Filter:
        parts = [self._term()]
        while self._skip("OR"):
            parts.append(self._term())
        return lambda job: any(part(job) for part in parts)

    def _term(self) -> Filter:
        if self._skip("NOT", "-"):
            inner = self._term()
            return lambda job: not inner(job)
        if self._skip("("):
            found = self.all_of()
            if not self._skip(")"):
                raise FilterError("a parenthesis is not closed")
            return found
        field = self._take("word")
        operator = self._take("operator")
        kind, value = self._peek()
        if kind not in ("text", "word"):
            raise FilterError(f"a value is missing after {field}{operator}")
        self._next += 1
        if kind == "text":
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        return _comparison(field, operator, value)


def _comparison(field: str, operator: str, value: str) -> Filter:
    if field.startswith("labels."):
        return _label(field.removeprefix("labels."), operator, value)
    match field, operator:
        case "display_name", "=" | "!=" | ":":
            return _text(lambda job: job.display_name, operator, value)
        case "model_display_name", "=" | "!=":
            # Google's own models have no display name.
            return _text(lambda _: "", operator, value)
        case "state", "=" | "!=":
            return _text(lambda job: job.state, operator, value)
        case "create_time" | "update_time", _ if operator in _COMPARISONS:
            moment, holds = _seconds(value), _COMPARISONS[operator]
            if field == "create_time":
                return lambda job: holds(job.create_time, moment)
            return lambda job: holds(job.update_time, moment)
        case _:
            raise FilterError(f"{field!r} cannot be filtered with {operator!r}")


def _text(get: Callable[[Listed], str], operator: str, value: str) -> Filter:
    if operator == "=":
        return lambda job: get(job) == value
    if operator == "!=":
        return lambda job: get(job) != value
    pattern = re.sub(r"[\[?]", r"[\g<0>]", value)
    pattern = pattern if "*" in pattern else f"*{pattern}*"
    return lambda job: fnmatchcase(get(job), pattern)


def _label(name: str, operator: str, value: str) -> Filter:
    match operator:
        case "=":
            return lambda job: job.labels.get(name) == value
        case "!=":
            return lambda job: job.labels.get(name) != value
        case ":" if value == "*":
            return lambda job: name in job.labels
        case _:
            raise FilterError(f"a label cannot be filtered with {operator}{value}")


def _seconds(value: str) -> float:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise FilterError(f"{value!r} is not a time of RFC 3339") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
