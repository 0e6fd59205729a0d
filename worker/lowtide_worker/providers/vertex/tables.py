"""The tables in BigQuery that Vertex AI's jobs write: Lowtide's own and those at users' destinations."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
from google.cloud.bigquery.retry import DEFAULT_RETRY

from lowtide.addresses import is_under, parse_table
from lowtide.cloud import bigquery_client
from lowtide.models import ResultError
from lowtide_worker.providers.protocol import NO_RESPONSE, Refused, Writer
from lowtide_worker.providers.vertex.storage import cloud_failures
from lowtide_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from google.cloud import bigquery

_PAGE_ROWS = 2000
_OURS = "lowtide_"
_SHOWN_CHARS = 200
_encode = msgspec.json.Encoder().encode


class VertexTables:
    """The tables `lowtide_*` in `vertex_dataset`, and the tables at users' destinations.

    Every method raises the errors of `cloud_failures`.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        timeout = settings.provider_timeout_seconds
        self._call_options: dict[str, Any] = {"timeout": timeout, "retry": DEFAULT_RETRY.with_timeout(timeout)}

    @cached_property
    def _client(self) -> bigquery.Client:
        return bigquery_client(self._settings)

    def output(self, display_name: str, destination: str | None) -> str:
        """Returns the URI of the table that a job creates.

        - `display_name`: the job's, which ends in the job's number.
        - `destination`: the user's dataset or table; None: Lowtide's own dataset.

        A batch's first job creates the table that the user named; further jobs add their number to that name. Raises
        `Refused` if there is neither a destination nor `vertex_dataset`.
        """
        if destination is None:
            return f"{self._dataset()}.{display_name.replace('-', '_')}"
        wanted = parse_table(destination)
        number = int(display_name.rpartition("-")[2])
        if not wanted.table:
            return f"{destination}.{display_name.replace('-', '_')}"
        return destination if number == 1 else f"{destination}_{number}"

    def download(self, uri: str, key: str, sink: Writer) -> None:
        """Writes each row of a table into `sink` as a line of a predictions file.

        - `uri`: the table.
        - `key`: the column with the rows' keys.

        Raises `Refused` for a table outside the configured places, and for one without responses.
        """
        if not is_under(uri, [self._settings.vertex_dataset or "bq://", *self._settings.vertex_locations]):
            message = f"{uri} is outside LOWTIDE_VERTEX_DATASET and LOWTIDE_VERTEX_LOCATIONS"
            raise Refused(ResultError(reason="OUTSIDE_ROOT", message=message))
        with cloud_failures(uri):
            table = self._client.get_table(".".join(parse_table(uri)), **self._call_options)
            columns = [field for field in table.schema if field.name in {key, "key", "response", "status"}]
            names = {field.name for field in columns}
            if "response" not in names:
                found = ", ".join(field.name for field in table.schema)[:_SHOWN_CHARS]
                message = f"{uri} has no column response, so its rows cannot be read; it has {found}"
                raise Refused(ResultError(reason="UNKNOWN_OUTPUT", message=message))
            # Requests that run again are uploaded under Lowtide's wire keys, in the column `key`.
            key = key if key in names else "key"
            for row in self._client.list_rows(table, columns, page_size=_PAGE_ROWS, **self._call_options):
                line = {"key": _text(row.get(key)), "status": row.get("status"), "response": _json(row.get("response"))}
                sink.write(_encode(line) + b"\n")

    def is_ours(self, location: str) -> bool:
        """Returns whether this is a table `lowtide_*` of Lowtide's dataset."""
        root = self._settings.vertex_dataset
        return root is not None and location.startswith(f"{root}.{_OURS}")

    def delete_output(self, location: str) -> None:
        """Deletes a table of Lowtide's, and no other. One that is gone is no error."""
        if not self.is_ours(location):
            return
        with cloud_failures(location):
            self._client.delete_table(".".join(parse_table(location)), not_found_ok=True, **self._call_options)

    def _dataset(self) -> str:
        if self._settings.vertex_dataset is None:
            message = "set LOWTIDE_VERTEX_DATASET to bq://project.dataset, or give the batch a destination"
            raise Refused(ResultError(reason="NO_DATASET", message=message))
        return self._settings.vertex_dataset


def _text(key: object) -> str | None:
    """Returns a key as text: a column of integers has their decimal digits."""
    return None if key is None else str(key)


def _json(value: object) -> object:
    """Returns a response for encoding. A JSON column comes decoded, a STRING column as text.

    Text that is no JSON becomes an unreadable row.
    """
    if isinstance(value, str):
        return msgspec.Raw(value.encode()) if value.strip() else NO_RESPONSE
    return value
