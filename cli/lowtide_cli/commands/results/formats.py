"""The formats of `lowtide results`. Each is a stream of lines, so that results of any number fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from functools import partial

import msgspec

from lowtide import BatchStatus, Result
from lowtide.budgets import plain_dollars
from lowtide.models import read_result
from lowtide.openai import result_line
from lowtide_cli.terminal.spreadsheet import csv_line

_ESCAPES = str.maketrans(
    {code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}
    | {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
)
"""Programs differ in what ends a line, or a text: all control characters and Unicode's separators are escaped."""
_COLUMNS = ("key", "status", "reason", "text", "metadata", "cost")


class Format(StrEnum):
    """The formats, as `--format` names them."""

    JSONL = "jsonl"
    """Stored results as they are: one JSON object a line."""
    OPENAI = "openai"
    """Lines of OpenAI's batch output."""
    CSV = "csv"
    """RFC 4180 with a header line. Keys and texts have their line ends and control characters, and an apostrophe before
    what a spreadsheet would run as a formula. The cost is in US dollars, and empty where it is unknown."""
    TEXT = "text"
    """Key, tab, text: one request a line, for every reader. Control characters are escaped."""


def formatted(lines: Iterable[bytes], status: BatchStatus, form: Format) -> Iterator[bytes]:
    """Yields stored results of a batch as lines of this format, with their line ends."""
    if form is Format.JSONL:
        return (line + b"\n" for line in lines)
    return _FORMATS[form](map(partial(read_result, batch_id=status.id, labels=status.labels), lines), status)


def _openai(results: Iterator[Result], status: BatchStatus) -> Iterator[bytes]:
    created = int(status.created_at)
    for result in results:
        yield result_line(result, batch_id=status.id, model=status.model, created=created) + b"\n"


def _csv(results: Iterator[Result], status: BatchStatus) -> Iterator[bytes]:
    del status
    yield _csv_line(_COLUMNS)
    for result in results:
        reason = result.error.reason if result.error else ""
        metadata = msgspec.json.encode(result.metadata).decode() if result.metadata else ""
        cost = "" if result.cost is None else plain_dollars(result.cost)
        yield _csv_line((result.key, str(result.status), reason, _text(result), metadata, cost))


def _csv_line(values: tuple[str, ...]) -> bytes:
    return _encoded(csv_line(values))


def _lines(results: Iterator[Result], status: BatchStatus) -> Iterator[bytes]:
    del status
    for result in results:
        yield _encoded(f"{result.key.translate(_ESCAPES)}\t{_text(result).translate(_ESCAPES)}\n")


def _text(result: Result) -> str:
    """The text of an answer, or the vector of an embedding as JSON; empty where there is neither."""
    if (vector := result.vector) is not None:
        return msgspec.json.encode(vector).decode()
    return result.text or ""


def _encoded(text: str) -> bytes:
    # JSON can hold half a surrogate pair, UTF-8 cannot.
    return text.encode(errors="replace")


_FORMATS: dict[Format, Callable[[Iterator[Result], BatchStatus], Iterator[bytes]]] = {
    Format.OPENAI: _openai,
    Format.CSV: _csv,
    Format.TEXT: _lines,
}
