"""The rows of a new batch: each is checked, and one row that cannot be parsed refuses the whole batch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Raw

from lowtide_emulator.calls import RefusalError
from lowtide_emulator.engine import BUFFER, text_tokens
from lowtide_emulator.wire import DEVELOPER_TYPES, TOO_DEEP, WireError

_PLACE_OF_ROWS = "batch.input_config.requests.requests"
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Loaded(NamedTuple):
    """The rows of a new batch: their number, and their input tokens, which are 0 unless they were to be counted."""

    requests: int
    tokens: int


class RowKind(NamedTuple):
    """The kind of a job's rows.

    embeddings: whether they are embedContent requests.
    count_tokens: whether a quota needs their tokens.
    """

    embeddings: bool
    count_tokens: bool


class RowChecker:
    """A check for rows of one kind of job: requests with their key or metadata.

    tokens: the input tokens of the rows so far; 0 unless they are to be counted.
    """

    def __init__(self, kind: RowKind, *, inline: bool) -> None:
        self.tokens = 0
        self._counts = kind.count_tokens
        self._check = DEVELOPER_TYPES.check(
            ("Inline" if inline else "File") + ("EmbedRow" if kind.embeddings else "Row")
        )
        self._inline = inline

    def key(self, row: bytes, number: int) -> str:
        """Returns the key of a row; an empty one if it has none. Raises RefusalError for a row that is not valid.

        number: the position of the row, from 1.
        """
        try:
            value = _decode(row)
            self._check(value)
        except WireError as error:
            raise self._refusal(error, number) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._unparsed(f"not valid JSON: {error}", number) from None
        except RecursionError:
            raise self._unparsed(TOO_DEEP, number) from None
        if value.get("request") is None:
            raise self._unparsed("missing required field 'request'", number)
        if self._counts:
            self.tokens += text_tokens(value["request"])
        found = (value.get("metadata") or {}).get("key") if self._inline else value.get("key")
        return "" if found is None else str(found)

    def _refusal(self, error: WireError, number: int) -> RefusalError:
        if not self._inline:
            return self._unparsed(error.in_line(), number)
        # The body of a call is one message, so that the place is counted from its beginning.
        text = error.inside(f"[{number - 1}]").inside(_PLACE_OF_ROWS).in_call()
        violation = {"field": error.path, "description": text}
        return RefusalError(
            400,
            text,
            details=[{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}],
        )

    def _unparsed(self, problem: str, number: int) -> RefusalError:
        place = f"request {number}" if self._inline else f"line {number} of the input file"
        return RefusalError(400, f"Failed to parse {place}: {problem}")


def load_file(source: Path, input_path: Path, keys_path: Path, kind: RowKind) -> Loaded:
    """Checks a JSONL file, keeps it for a job with a file of its keys, and returns what it holds.

    The job has its own link to the file, so that it keeps its rows when the upload is deleted.
    """
    with source.open("rb", buffering=BUFFER) as lines:
        loaded = _check(RowChecker(kind, inline=False), lines, keys_path)
    os.link(source, input_path)
    return loaded


def load_inline(rows: list[Raw], input_path: Path, keys_path: Path, kind: RowKind) -> Loaded:
    """Checks the rows of a create call, keeps them as a file with a file of their keys, and returns what they hold."""
    loaded = _check(RowChecker(kind, inline=True), map(bytes, rows), keys_path)
    with input_path.open("wb", buffering=BUFFER) as out:
        out.writelines(map(one_line, rows))
    return loaded


def one_line(row: Raw) -> bytes:
    """Returns a row as a line. A line break can be between the tokens of a row but not inside a token."""
    return bytes(row).replace(b"\n", b" ") + b"\n"


def _check(checker: RowChecker, rows: Iterable[bytes], keys_path: Path) -> Loaded:
    count = 0
    try:
        with keys_path.open("wb", buffering=BUFFER) as keys:
            for number, row in enumerate(rows, 1):
                if row.isspace():
                    continue
                keys.write(_encode(checker.key(row, number)) + b"\n")
                count += 1
    except RefusalError:
        keys_path.unlink()
        raise
    if count == 0:
        keys_path.unlink()
        raise RefusalError(400, "The batch has no requests.")
    return Loaded(count, checker.tokens)
