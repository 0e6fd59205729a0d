"""The rows of a new batch: each is checked, and one invalid row refuses the whole batch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Raw

from lowtide_emulator.calls import RefusalError
from lowtide_emulator.engine import BUFFER, Row
from lowtide_emulator.wire import EmbedContentRequest, GenerateContentRequest, RequestChecker


class RowChecker(RequestChecker):
    """A check for rows of one kind of job: requests with their key or metadata."""

    def __init__(self, request: type[msgspec.Struct], *, inline: bool) -> None:
        place = "metadata" if inline else "key"
        kind = dict[str, object] | None if inline else str | None
        super().__init__(
            msgspec.defstruct("Row", [("request", request), (place, kind, None)], forbid_unknown_fields=True, gc=False)
        )


def load_file(source: Path, input_path: Path, keys_path: Path, *, embeddings: bool) -> int:
    """Checks a JSONL file, keeps it for a job with a file of its keys, and returns the number of rows.

    The job has its own link to the file, so that it keeps its rows when the upload is deleted.
    """
    checker = _checker(embeddings=embeddings, inline=False)
    with source.open("rb", buffering=BUFFER) as lines:
        count = _check(checker, lines, keys_path, "line {} of the input file")
    os.link(source, input_path)
    return count


def load_inline(rows: list[Raw], input_path: Path, keys_path: Path, *, embeddings: bool) -> int:
    """Checks the rows of a create call, keeps them as a file with a file of their keys, and returns their number."""
    checker = _checker(embeddings=embeddings, inline=True)
    count = _check(checker, map(bytes, rows), keys_path, "request {}")
    with input_path.open("wb", buffering=BUFFER) as out:
        for row in rows:
            # A line break can be between the tokens of a row but not inside a token.
            out.write(bytes(row).replace(b"\n", b" "))
            out.write(b"\n")
    return count


def _checker(*, embeddings: bool, inline: bool) -> RowChecker:
    return RowChecker(EmbedContentRequest if embeddings else GenerateContentRequest, inline=inline)


def _check(checker: RowChecker, rows: Iterable[bytes], keys_path: Path, place: str) -> int:
    decode = msgspec.json.Decoder(Row).decode
    encode = msgspec.json.Encoder().encode
    count = 0
    problem: str | None = None
    with keys_path.open("wb", buffering=BUFFER) as keys:
        for number, row in enumerate(rows, 1):
            if row.isspace():
                continue
            problem = checker.problem(row)
            if problem is not None:
                problem = f"Failed to parse {place.format(number)}: {problem}"
                break
            keys.write(encode(decode(row).name or ""))
            keys.write(b"\n")
            count += 1
    if problem is None and count == 0:
        problem = "The batch has no requests."
    if problem is not None:
        keys_path.unlink()
        raise RefusalError(400, problem)
    return count
