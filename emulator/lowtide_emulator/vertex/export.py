"""The export of a job's results to a folder of Cloud Storage or a table of BigQuery.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-from-cloud-storage and
https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-from-bigquery
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Raw

from lowtide_emulator.engine import BUFFER
from lowtide_emulator.vertex.big_query import BigQuery
from lowtide_emulator.vertex.cloud_storage import CloudStorage
from lowtide_emulator.vertex.jobs import PredictionJob, TableColumn

INCREMENTAL_ROWS = 1000
"""The most rows in the file of predictions so far. It exists to find clients that read it, and can be short."""

ADDED_COLUMNS = (
    TableColumn("response", "JSON"),
    TableColumn("status", "STRING"),
    TableColumn("processed_time", "TIMESTAMP"),
)
"""The columns of an output table that its input table does not have."""

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


def export_objects(
    path: Path, folder: str, storage: CloudStorage, *, shard_bytes: int | None, fraction: float = 1.0
) -> None:
    """Writes the lines of a file as `predictions.jsonl`, or as shards of it. Raises JobFailed.

    shard_bytes: the approximate size of a shard; None for one file.
    fraction: the part of the shards that is written. Of a single file that is not to be written whole, nothing is.
    """
    shards = list(_shards(path, shard_bytes))
    for number, (offset, size) in enumerate(shards):
        if fraction < 1 and shard_bytes is None:
            size = 0
        elif number >= round(fraction * len(shards)):
            return
        name = "predictions.jsonl" + (f"-{number:05d}-of-{len(shards):05d}" if shard_bytes is not None else "")
        storage.upload(path, f"{folder}/{name}", offset=offset, size=size)


def export_table(
    job: PredictionJob, path: Path, table: str, bigquery: BigQuery, *, fraction: float = 1.0, again: bool = False
) -> None:
    """Writes the lines of a file as rows of a table, without damaged lines. Raises JobFailed.

    fraction: the part of the rows that is written, from the first.
    again: whether the rows replace those that are in the table.
    """
    added = {column.name for column in ADDED_COLUMNS}
    inputs = [column for column in job.columns if column.name not in added]
    columns = [*inputs, *ADDED_COLUMNS]
    texts = [column.name for column in inputs if column.kind == "STRING"]
    known = {column.name for column in columns}
    with path.open("rb", buffering=BUFFER) as lines, tempfile.TemporaryFile(dir=path.parent) as rows:
        for line in itertools.islice(lines, round(fraction * job.requests) if fraction < 1 else None):
            try:
                fields = _decode_fields(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            row: dict[str, object] = {name: value for name, value in fields.items() if name in known}
            for name in texts:
                # A request from a text column is returned as text.
                if name in fields and not bytes(fields[name]).startswith((b'"', b"null")):
                    row[name] = bytes(fields[name]).decode()
            rows.write(_encode(row))
            rows.write(b"\n")
        rows.seek(0)
        bigquery.load(table, columns, rows, replace=again)


def reverse_lines(path: Path) -> None:
    """Reverses the order of a file's lines."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(reversed(lines)))


def _shards(path: Path, shard_bytes: int | None) -> Iterator[tuple[int, int]]:
    size = path.stat().st_size
    if shard_bytes is None:
        yield 0, size
        return
    begin = 0
    with path.open("rb", buffering=BUFFER) as lines:
        while begin < size:
            lines.seek(min(size, begin + shard_bytes) - 1)
            lines.readline()
            yield begin, lines.tell() - begin
            begin = lines.tell()
