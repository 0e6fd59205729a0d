"""The import of a job's rows from Cloud Storage or BigQuery, into a file of rows and a file of keys."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from lowtide_emulator.engine import BUFFER, StoppedError
from lowtide_emulator.vertex.big_query import BigQuery
from lowtide_emulator.vertex.cloud_storage import CloudStorage
from lowtide_emulator.vertex.failures import JobFailed
from lowtide_emulator.vertex.importer import Column, ImportRefused, Record, Schema
from lowtide_emulator.vertex.jobs import PredictionJob, TableColumn
from lowtide_emulator.vertex.rows import row_name

ROWS_BETWEEN_STOP_CHECKS = 256

TABLE_TYPES = {"STRING": "STRING", "INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}
"""Types of importer columns as types of table columns. Other types become JSON."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


def load_objects(job: PredictionJob, storage: CloudStorage, *, max_bytes: int, max_rows: int) -> None:
    """Loads a job's lines from Cloud Storage through the importer. Raises JobFailed."""
    schema = Schema()
    begins: list[tuple[int, str]] = []
    with job.input_path.open("wb") as out:
        for uri in job.uris:
            for name in storage.download(uri, out, limit=max_bytes):
                _end_line(out, job.input_path)
                begins.append((out.tell(), name))
    names = iter([*begins, (-1, "")])
    _, uri = next(names)
    following, next_uri = next(names)
    place, number = 0, 0
    keys = _KeyWriter(job, max_rows)
    with job.input_path.open("rb", buffering=BUFFER) as lines, keys:
        for line in lines:
            while place == following:
                number, uri = 0, next_uri
                following, next_uri = next(names)
            place += len(line)
            number += 1
            if line.isspace():
                continue
            try:
                row = _decode(line)
                schema.add(row)
            except (msgspec.DecodeError, UnicodeDecodeError, ImportRefused) as error:
                raise JobFailed(
                    3,
                    f"Failed to import data from {uri}: JSON table encountered too many errors, giving up. "
                    f"Error while reading line {number}: {error}",
                ) from error
            keys.add(row, uri)
    fields = schema.root.fields
    if "request" not in fields or fields["request"].kind != "RECORD":
        raise JobFailed(3, f"Failed to import data from {uri}: no line has an object under 'request'")
    job.columns = [TableColumn(name, _table_type(name, field)) for name, field in fields.items()]
    job.layout = schema.root if schema.root.ragged else None


def load_table(job: PredictionJob, bigquery: BigQuery, uri: str, column: str, *, max_rows: int) -> None:
    """Loads a job's rows from BigQuery. Raises JobFailed.

    uri: the table.
    column: the column with the requests, which is called `request` in the output.
    """
    found = bigquery.columns(uri, column)
    job.columns = [TableColumn("request" if name == column else name, kind) for name, kind in found]
    as_text = dict(job.columns)["request"] == "STRING"
    keys = _KeyWriter(job, max_rows)
    with job.input_path.open("wb", buffering=BUFFER) as out, keys:
        for row in bigquery.rows(uri):
            row["request"] = row.pop(column)
            if as_text and isinstance(text := row["request"], str):
                # Text that is not JSON stays text, and the row is refused later.
                row["request"] = _parsed(text)
            keys.add(row, uri)
            out.write(_encode(row))
            out.write(b"\n")


class _KeyWriter:
    """Counts rows and writes their keys to a file."""

    def __init__(self, job: PredictionJob, max_rows: int) -> None:
        self._job = job
        self._max_rows = max_rows
        self._count = 0
        self._keys: BinaryIO | None = None

    def __enter__(self) -> None:
        self._keys = self._job.keys_path.open("wb", buffering=BUFFER)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._keys is not None:
            self._keys.close()
        if kind is None and self._count == 0:
            raise JobFailed(3, f"Failed to import data from {self._job.uris[0]}: there are no rows")
        if kind is None:
            self._job.requests = self._count

    def add(self, row: Record, uri: str) -> None:
        job = self._job
        if self._count % ROWS_BETWEEN_STOP_CHECKS == 0 and job.progress.stop:
            raise StoppedError
        field, name = row_name(row)
        if self._count == 0 and field is not None:
            job.key_field = field
        self._count += 1
        if self._count > self._max_rows:
            raise JobFailed(3, f"Failed to import data from {uri}: more than {self._max_rows} requests")
        cast("BinaryIO", self._keys).write(_encode(name) + b"\n")


def _end_line(out: BinaryIO, path: Path) -> None:
    """Adds a line break to the last line of a file if it has none."""
    out.flush()
    size = out.tell()
    if size:
        with path.open("rb") as written:
            written.seek(size - 1)
            if written.read(1) != b"\n":
                out.write(b"\n")


def _table_type(name: str, field: Column) -> str:
    if name == "request" or field.repeated:
        return "JSON"
    return TABLE_TYPES.get(field.kind or "", "JSON")


def _parsed(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return text
