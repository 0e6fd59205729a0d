"""Tables of a BigQuery server, read and written with Google's own client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from lowtide_emulator.vertex.failures import JobFailed, failures
from lowtide_emulator.vertex.jobs import TableColumn

if TYPE_CHECKING:
    from google.cloud.bigquery import SchemaField

PAGE = 2000
SECONDS = 120
PATIENCE_SECONDS = 10.0
"""The time for retries of calls to a server that does not answer."""
REFUSED = ("ARRAY", "STRUCT", "RECORD", "RANGE", "DATETIME", "GEOGRAPHY")
"""The types of columns that the service does not copy."""


class BigQuery:
    """A client without credentials for the server at `url`, to be used in a `with` statement."""

    def __init__(self, url: str) -> None:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.bigquery import Client
        from google.cloud.bigquery.retry import DEFAULT_RETRY

        self._client = Client(
            project="lowtide-emulator",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]  # untyped in the library
            client_options={"api_endpoint": url},
        )
        self._retry = DEFAULT_RETRY.with_timeout(PATIENCE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()  # type: ignore[no-untyped-call]  # untyped in the library

    def columns(self, uri: str, request: str) -> list[TableColumn]:
        """Returns the columns of a table of requests. Raises JobFailed.

        request: the column with the requests.
        """
        with failures(f"Failed to import data from {uri}", missing=9):
            schema = self._client.get_table(uri.removeprefix("bq://"), timeout=SECONDS, retry=self._retry).schema
        columns = [TableColumn(field.name, _kind(field)) for field in schema]
        kinds = dict(columns)
        if kinds.get(request) not in ("JSON", "STRING"):
            raise JobFailed(
                3, f"Failed to import data from {uri}: it needs a column '{request}' of type JSON or STRING"
            )
        for name, kind in columns:
            if kind in REFUSED:
                raise JobFailed(3, f"Failed to import data from {uri}: column '{name}' is of unsupported type {kind}")
        return columns

    def rows(self, uri: str) -> Iterator[dict[str, object]]:
        """Yields the rows of a table, page by page. Raises JobFailed."""
        with failures(f"Failed to import data from {uri}", missing=9):
            table = self._client.get_table(uri.removeprefix("bq://"), timeout=SECONDS, retry=self._retry)
            for row in self._client.list_rows(table, page_size=PAGE, timeout=SECONDS, retry=self._retry):
                yield dict(row.items())

    def check_dataset(self, table: str) -> None:
        """Raises JobFailed if the dataset of a table does not exist."""
        dataset = table.rpartition(".")[0]
        with failures(f"Failed to get the BigQuery dataset {dataset}", missing=9):
            self._client.get_dataset(dataset, timeout=SECONDS, retry=self._retry)

    def load(self, table: str, columns: Sequence[TableColumn], lines: BinaryIO, *, replace: bool) -> None:
        """Appends JSON lines to a table, and creates it if it does not exist. Raises JobFailed.

        All rows appear at once. With `replace` they replace those that are there.
        """
        from google.cloud.bigquery import LoadJobConfig, SchemaField, SourceFormat, Table

        schema = [SchemaField(column.name, column.kind) for column in columns]
        config = LoadJobConfig(
            source_format=SourceFormat.NEWLINE_DELIMITED_JSON,
            schema=schema,
            write_disposition="WRITE_TRUNCATE" if replace else "WRITE_APPEND",
        )
        with failures(f"Failed to export predictions to bq://{table}", missing=9):
            self._client.create_table(Table(table, schema=schema), exists_ok=True, timeout=SECONDS, retry=self._retry)
            # Without a size the upload is resumable, and therefore streams.
            self._client.load_table_from_file(lines, table, job_config=config, timeout=SECONDS).result(
                timeout=SECONDS, retry=self._retry
            )


def _kind(field: SchemaField) -> str:
    return "ARRAY" if field.mode == "REPEATED" else str(field.field_type).upper()
