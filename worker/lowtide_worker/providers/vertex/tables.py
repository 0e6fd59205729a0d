"""The tables in BigQuery that Vertex AI's jobs write: Lowtide's own and those at users' destinations."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
from google.cloud.bigquery import SchemaField
from google.cloud.bigquery.retry import DEFAULT_RETRY

from lowtide.addresses import parse_table
from lowtide.cloud import bigquery_client
from lowtide.models import ResultError
from lowtide_worker.providers.lines import without_line_ends
from lowtide_worker.providers.protocol import NO_RESPONSE, Output, Refused, Writer
from lowtide_worker.providers.vertex.places import is_table_of, new_suffix, readable_table, table_id
from lowtide_worker.providers.vertex.storage import cloud_failures
from lowtide_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from google.cloud import bigquery

_PAGE_ROWS = 2000
_SHOWN_CHARS = 200
_encode = msgspec.json.Encoder().encode
_check = msgspec.json.Decoder(msgspec.Raw).decode


class VertexTables:
    """The tables `lowtide_*` in `vertex_dataset`, and the tables at users' destinations.

    Every method raises the errors of `cloud_failures`.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._roots = [root for root in (settings.vertex_dataset, *settings.vertex_locations) if root]
        timeout = settings.provider_timeout_seconds
        self._call_options: dict[str, Any] = {"timeout": timeout, "retry": DEFAULT_RETRY.with_timeout(timeout)}

    @cached_property
    def _client(self) -> bigquery.Client:
        return bigquery_client(self._settings)

    def output(self, display_name: str, destination: str | None, *, again: bool = False) -> str:
        """Returns the URI of the table that one create call makes.

        - `display_name`: the job's, which ends in the job's number.
        - `destination`: the user's dataset or table; None: Lowtide's own dataset.
        - `again`: whether an earlier create may have made a job of this display name.

        A batch's first job makes the table that the user named. All other tables have a suffix, so that no two jobs
        share one. Raises `Refused` if there is neither a destination nor `vertex_dataset`.
        """
        suffix = new_suffix()
        if destination is None:
            return f"{self._dataset()}.{table_id(display_name)}_{suffix}"
        if not parse_table(destination).table:
            return f"{destination}.predictions_{table_id(display_name)}_{suffix}"
        number = int(display_name.rpartition("-")[2])
        return destination if number == 1 and not again else f"{destination}_{number}_{suffix}"

    def download(self, uri: str, output: Output, sink: Writer) -> None:
        """Writes each row of a table into `sink` as a line of a predictions file.

        - `uri`: the table.
        - `output`: the output whose table it is.

        A row that cannot be read becomes a line with its key. Raises `Refused` for a table outside the configured
        places that is not the job's own, and for one without responses.
        """
        place = readable_table(uri, self._roots, output.display_name)
        with cloud_failures(uri):
            table = self._client.get_table(".".join(place), **self._call_options)
            names = [field.name for field in table.schema]
            if "response" not in names:
                found = ", ".join(names)[:_SHOWN_CHARS]
                message = f"{uri} has no column response, so its rows cannot be read; it has {found}"
                raise Refused(ResultError(reason="UNKNOWN_OUTPUT", message=message))
            # Requests that run again are uploaded under Lowtide's wire keys, in the column `key`.
            key = output.key if output.key in names else "key"
            # As text, whatever the types are: Google's client would decode JSON, and stop at the first odd row.
            columns = [SchemaField(name, "STRING") for name in names if name in {key, "response", "status"}]
            for row in self._client.list_rows(table, columns, page_size=_PAGE_ROWS, **self._call_options):
                sink.write(_line(row.get(key), row.get("status"), row.get("response")))

    def last_change(self, uri: str) -> float | None:
        """Returns when a table was last changed, in Unix milliseconds; None if the service does not say."""
        with cloud_failures(uri):
            changed = self._client.get_table(".".join(parse_table(uri)), **self._call_options).modified
        return None if changed is None else round(changed.timestamp() * 1000)

    def is_own(self, location: str, display_name: str) -> bool:
        """Returns whether this is a job's table in Lowtide's dataset."""
        root = self._settings.vertex_dataset
        return root is not None and location.startswith(f"{root}.") and is_table_of(location, display_name)

    def delete_output(self, location: str, display_name: str) -> None:
        """Deletes a job's table in Lowtide's dataset, and no other. One that is gone is no error."""
        if not self.is_own(location, display_name):
            return
        with cloud_failures(location):
            self._client.delete_table(".".join(parse_table(location)), not_found_ok=True, **self._call_options)

    def _dataset(self) -> str:
        if self._settings.vertex_dataset is None:
            message = "set LOWTIDE_VERTEX_DATASET to bq://project.dataset, or give the batch a destination"
            raise Refused(ResultError(reason="NO_DATASET", message=message))
        return self._settings.vertex_dataset


def _line(key: object, status: object, response: object) -> bytes:
    fields = {"key": _text(key), "status": _text(status), "response": _response(response)}
    return _encode(fields) + b"\n"


def _text(value: object) -> str | None:
    """Returns a value as text. Half a character (a lone surrogate), which no line can hold, becomes a `?`."""
    return None if value is None else str(value).encode(errors="replace").decode()


def _response(value: object) -> msgspec.Raw | str:
    """Returns a response as JSON on one line. Text that is no JSON stays text, and so is an unreadable response."""
    text = _text(value)
    if text is None or not text.strip():
        return NO_RESPONSE
    try:
        return msgspec.Raw(without_line_ends(bytes(_check(text))))
    except (msgspec.DecodeError, RecursionError):
        return text
