"""Batches whose requests lie where the provider reads them itself: their first job knows users' own keys only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO

import msgspec

from lowtide.models import ResultError
from lowtide.protocol import BatchFiles, WireKeys
from lowtide.spool import KeyIndex, RequestReader, Spool
from lowtide_worker.output import Row, decoded_parts, part_ranges
from lowtide_worker.providers import Missing, Provider, Refused

_READ_AT_ONCE = 1000


class _Line(msgspec.Struct, frozen=True):
    key: str
    request: msgspec.Raw


_decode = msgspec.json.Decoder(_Line).decode


def in_place(batch: Mapping[str, str], job: Mapping[str, str]) -> bool:
    """Whether the job uses its batch's sources as they are. What runs again travels as in any other batch."""
    return bool(batch.get("sources")) and not int(job.get("sparse", 0))


def source_uris(batch: Mapping[str, str]) -> tuple[str, ...]:
    """What the provider is given to use in place."""
    return tuple(part.name for part in decoded_parts(batch["sources"]))


def lines_elsewhere(batch: Mapping[str, str]) -> bool:
    """Whether the spool has no copy of the lines; of a table's rows it has one."""
    return bool(batch.get("sources")) and source_uris(batch)[0].startswith("gs://")


def under_wire_keys(rows: Sequence[Row], spool: Spool, batch_id: str) -> list[Row]:
    """The rows under the keys they would have had if they had travelled with ours; others' stay as they are."""
    index = KeyIndex.read(spool, BatchFiles(batch_id))
    wire_key = WireKeys(batch_id).of
    ordinals = (index.ordinal(row.key) if row.key is not None else None for row in rows)
    return [
        row if ordinal is None or row.key is None else Row(wire_key(ordinal, row.key), row.response, row.outcome)
        for row, ordinal in zip(rows, ordinals, strict=True)
    ]


def copy_lines(
    provider: Provider,
    batch: Mapping[str, str],
    reader: RequestReader,
    runs: Iterable[tuple[int, int]],
    sink: IO[bytes],
    keep: Callable[[], None],
) -> None:
    """Writes the lines of ordinal ranges [first, last), from where they lie, under our own keys.

    Calls `keep` again and again. Raises `Refused` where a line is no longer the one that was accepted.
    """
    for first, last in _stretches(runs):
        keys = reader.keys(range(first, last))
        try:
            lines = list(_lines(provider, batch["sources"], *reader.byte_range(first, last)))
        except (Missing, msgspec.DecodeError) as error:
            raise _changed(f"its source is not what it was at submit: {error}") from error
        if [line.key for line in lines] != [key.key for key in keys.values()]:
            raise _changed(f"requests {first + 1:,} to {last:,} are not where they were at submit")
        for key, line in zip(keys.values(), lines, strict=True):
            sink.write(b'{"key":"%b","request":%b}\n' % (key.wire.encode(), bytes(line.request)))
        keep()


def _changed(message: str) -> Refused:
    return Refused(ResultError(reason="SOURCE_CHANGED", message=message))


def _stretches(runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for first, last in runs:
        yield from ((low, min(low + _READ_AT_ONCE, last)) for low in range(first, last, _READ_AT_ONCE))


def _lines(provider: Provider, sources: str, start: int, end: int) -> Iterator[_Line]:
    for part in part_ranges(sources, start, end):
        for text in provider.read(*part).split(b"\n"):
            if text.strip():
                yield _decode(text)
