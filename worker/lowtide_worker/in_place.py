"""Batches whose requests the provider reads in place, in the user's own objects or table.

The rows of their first job have the user's own keys, not wire keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO

import msgspec
from msgspec.structs import replace

from lowtide.models import ResultError
from lowtide.protocol import BatchRecord, JobRecord, WireKeys
from lowtide.protocol.file_parts import Part
from lowtide.spool import KeyIndex, RequestReader, Spool
from lowtide_worker.output import Row, part_ranges
from lowtide_worker.providers import Missing, Provider, Refused

_LINES_AT_ONCE = 1000
_BYTES_AT_ONCE = 16 << 20
"""Most bytes of lines in memory, except for one longer line."""


class _Line(msgspec.Struct, frozen=True):
    key: str
    request: msgspec.Raw


_decode = msgspec.json.Decoder(_Line).decode


def in_place(batch: BatchRecord, job: JobRecord) -> bool:
    """Whether the job uses its batch's sources as they are. A retry job's requests travel as in any other batch."""
    return bool(batch.sources) and not job.sparse


def lines_elsewhere(batch: BatchRecord) -> bool:
    """Whether the spool has no copy of the lines. It has one of a table's rows."""
    return bool(batch.sources) and batch.sources[0].name.startswith("gs://")


def under_wire_keys(rows: Sequence[Row], spool: Spool, batch_id: str) -> list[Row]:
    """The rows under the wire keys of their requests. Rows of no request keep their keys."""
    index = KeyIndex.read(spool, batch_id)
    wire_key = WireKeys(batch_id).of
    ordinals = (index.ordinal(row.key) if row.key is not None else None for row in rows)
    return [
        row if ordinal is None or row.key is None else replace(row, key=wire_key(ordinal, row.key))
        for row, ordinal in zip(rows, ordinals, strict=True)
    ]


def copy_lines(
    provider: Provider,
    batch: BatchRecord,
    reader: RequestReader,
    runs: Iterable[tuple[int, int]],
    sink: IO[bytes],
    keep: Callable[[], None],
) -> None:
    """Reads the lines of ordinal ranges [first, last) in their sources and writes them under wire keys.

    Calls `keep` again and again. Raises `Refused` where a line is no longer the one that was accepted.
    """
    for first, last in _stretches(reader, runs):
        keys = reader.keys(range(first, last))
        try:
            lines = list(_lines(provider, batch.sources, *reader.byte_range(first, last)))
        except (Missing, msgspec.DecodeError) as error:
            raise _changed(f"its source is not what it was at submit: {error}") from error
        if [line.key for line in lines] != [key.key for key in keys.values()]:
            raise _changed(f"requests {first + 1:,} to {last:,} are not where they were at submit")
        for key, line in zip(keys.values(), lines, strict=True):
            sink.write(b'{"key":"%b","request":%b}\n' % (key.wire.encode(), bytes(line.request)))
        keep()


def _changed(message: str) -> Refused:
    return Refused(ResultError(reason="SOURCE_CHANGED", message=message))


def _stretches(reader: RequestReader, runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yields the runs in pieces that are small enough to be read at once."""
    for first, last in runs:
        low = first
        while low < last:
            most = min(low + _LINES_AT_ONCE, last)
            end = max(low + 1, reader.fitting(low, most, max_bytes=_BYTES_AT_ONCE, max_tokens=None))
            yield low, end
            low = end


def _lines(provider: Provider, sources: Sequence[Part], start: int, end: int) -> Iterator[_Line]:
    for part, first, last in part_ranges(sources, start, end):
        for text in provider.read(part, first, last).split(b"\n"):
            if text.strip():
                yield _decode(text)
