"""Objects of a Cloud Storage server, read and written with Google's own client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from lowtide_emulator.vertex.failures import JobFailed, failures

if TYPE_CHECKING:
    from google.cloud.storage import Blob

CHUNK = 8 * 1024 * 1024
SECONDS = 60
PATIENCE_SECONDS = 10.0
"""The time for retries of calls to a server that does not answer."""


def split_uri(uri: str) -> tuple[str, str]:
    """Returns bucket and object name of `gs://bucket/object`."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    return bucket, name


class CloudStorage:
    """A client without credentials for the server at `url`, to be used in a `with` statement."""

    def __init__(self, url: str) -> None:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.storage import Client
        from google.cloud.storage.retry import DEFAULT_RETRY

        # The library has no types for these two constructors.
        self._client = Client(
            project="lowtide-emulator",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": url},
        )
        self._retry = DEFAULT_RETRY.with_timeout(PATIENCE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def check_bucket(self, uri: str) -> None:
        """Raises JobFailed if the bucket does not exist."""
        bucket, _ = split_uri(uri)
        with failures(f"Failed to get GCS bucket location for {uri}", missing=9):
            self._client.get_bucket(bucket, timeout=SECONDS, retry=self._retry)

    def download(self, uri: str, out: BinaryIO, *, limit: int) -> Iterator[str]:
        """Appends all objects that match a URI to a file, and yields the name of each before. Raises JobFailed.

        uri: the URI of an object; a `*` in its name matches any text.
        limit: the most bytes that an object may have.
        """
        self.check_bucket(uri)
        for blob in self._find(uri):
            name = f"gs://{blob.bucket.name}/{blob.name}"
            with failures(f"Failed to import data from {name}", missing=3):
                blob.reload(timeout=SECONDS, retry=self._retry)
                if (blob.size or 0) > limit:
                    raise JobFailed(3, f"Failed to import data from {name}: the file is larger than {limit} bytes")
                yield name
                if blob.size:
                    # In chunks, so that the download streams; an empty object has no chunks to request.
                    blob.chunk_size = CHUNK
                    blob.download_to_file(out, timeout=SECONDS, retry=self._retry)

    def _find(self, uri: str) -> list[Blob]:
        bucket, name = split_uri(uri)
        if "*" not in name:
            return [self._client.bucket(bucket).blob(name)]
        prefix, _, suffix = name.partition("*")
        with failures(f"Failed to import data from {uri}", missing=3):
            found = [
                blob
                for blob in self._client.list_blobs(bucket, prefix=prefix, timeout=SECONDS, retry=self._retry)
                if blob.name.endswith(suffix) and not blob.name.endswith("/")
            ]
        if not found:
            raise JobFailed(3, f"Failed to import data from {uri}: no file matches")
        return found

    def upload(self, path: Path, uri: str, *, offset: int = 0, size: int | None = None) -> None:
        """Writes a part of a file as an object. Raises JobFailed.

        offset: the start of the part.
        size: the number of bytes; None for the rest of the file.
        """
        bucket, name = split_uri(uri)
        blob = self._client.bucket(bucket).blob(name, chunk_size=CHUNK)
        with failures(f"Failed to export predictions to {uri}", missing=9), path.open("rb") as source:
            source.seek(offset)
            length = path.stat().st_size - offset if size is None else size
            blob.upload_from_file(
                source, size=length, content_type="application/jsonl", timeout=SECONDS, retry=self._retry
            )
