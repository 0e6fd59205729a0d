"""Cloud Storage and BigQuery on this machine, for tests of Vertex AI."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from google.cloud import bigquery
from google.cloud.storage import Client as StorageClient

from lowtide.cloud import bigquery_client, storage_client
from lowtide.settings import Settings
from lowtide_emulator.cloud import BigQueryServer, CloudStorageServer

PROJECT = "lowtide-test"


class Cloud:
    """Both servers, started when first needed."""

    def __init__(self, folder: Path) -> None:
        self._storage = CloudStorageServer(folder / "storage")
        self._bigquery = BigQueryServer(folder / "bigquery")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._storage.stop()
        self._bigquery.stop()
        for variable in ("STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"):
            os.environ.pop(variable, None)

    @cached_property
    def storage_url(self) -> str:
        """The URL of Cloud Storage. The clients of this process use it too."""
        self._storage.start()
        os.environ["STORAGE_EMULATOR_HOST"] = self._storage.url
        return self._storage.url

    @cached_property
    def bigquery_url(self) -> str:
        """The URL of BigQuery. The clients of this process use it too."""
        self._bigquery.start()
        os.environ["BIGQUERY_EMULATOR_HOST"] = self._bigquery.url
        return self._bigquery.url

    @cached_property
    def _settings(self) -> Settings:
        settings: dict[str, Any] = {"GOOGLE_CLOUD_PROJECT": PROJECT, "vertex_credentials": "anonymous"}
        return Settings(_env_file=None, **settings)

    @cached_property
    def storage(self) -> StorageClient:
        """A client of Cloud Storage."""
        assert self.storage_url
        return storage_client(self._settings)

    @cached_property
    def bigquery(self) -> bigquery.Client:
        """A client of BigQuery."""
        assert self.bigquery_url
        return bigquery_client(self._settings)

    def new_bucket(self) -> str:
        """Creates a bucket and returns its name."""
        return str(self.storage.create_bucket(f"lowtide-{uuid4().hex[:12]}").name)

    def new_dataset(self) -> str:
        """Creates a dataset and returns `project.dataset`."""
        name = f"{PROJECT}.set_{uuid4().hex[:12]}"
        self.bigquery.create_dataset(name)
        return name

    def put(self, uri: str, lines: Iterable[Mapping[str, Any] | str]) -> str:
        """Writes the lines to an object and returns its URI."""
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        return self.put_bytes(uri, text.encode())

    def put_bytes(self, uri: str, content: bytes, encoding: str | None = None) -> str:
        """Writes an object, with a content encoding such as `gzip`, and returns its URI."""
        bucket, _, path = uri.removeprefix("gs://").partition("/")
        blob = self.storage.bucket(bucket).blob(path)
        blob.content_encoding = encoding
        blob.upload_from_string(content)
        return uri

    def objects(self, uri: str) -> list[str]:
        """Returns the names of the objects under a place, relative to it."""
        bucket, _, path = uri.removeprefix("gs://").partition("/")
        return sorted(blob.name.removeprefix(path).lstrip("/") for blob in self.storage.list_blobs(bucket, prefix=path))

    def clear(self, uri: str) -> None:
        """Deletes all objects under a place."""
        bucket, _, path = uri.removeprefix("gs://").partition("/")
        for blob in self.storage.list_blobs(bucket, prefix=path):
            blob.delete()

    def put_table(self, name: str, columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> str:
        """Creates a table `project.dataset.table` and returns its `bq://` URI."""
        schema = [bigquery.SchemaField(column, kind) for column, kind in columns.items()]
        self.bigquery.create_table(bigquery.Table(name, schema=schema))
        if lines := "\n".join(json.dumps(row) for row in rows).encode():
            config = bigquery.LoadJobConfig(schema=schema, source_format="NEWLINE_DELIMITED_JSON")
            self.bigquery.load_table_from_file(BytesIO(lines), name, job_config=config).result()
        return f"bq://{name}"

    def rows(self, uri: str) -> list[dict[str, Any]]:
        """Returns all rows of a table."""
        return [dict(row.items()) for row in self.bigquery.list_rows(uri.removeprefix("bq://"))]
