"""A bucket of Google Cloud Storage, by google-cloud-storage.

Source: https://cloud.google.com/storage/docs/json_api/v1 (Objects).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from lowtide.spool.buckets.errors import absent, changed, failure, not_installed
from lowtide.spool.objects import Block, Upload
from lowtide.spool.storage import Entry

_RETRY_SECONDS = 30.0
_TIMEOUT = (5, 60)
"""Seconds to connect, and between bytes."""
_PART_BYTES = 8 << 20
_BATCH = 100
"""Most deletes in one call."""
_ADVICE = {
    401: "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to the key of an account",
    403: "the account needs the role storage.objectUser on the bucket, and no retention policy may hold its objects",
    404: "make the bucket, or set LOWTIDE_SPOOL_URL to one that exists",
}


class GoogleBucket:
    """The calls of one bucket, with Application Default Credentials. STORAGE_EMULATOR_HOST names an emulator."""

    def __init__(self, name: str) -> None:
        try:
            from google.api_core import exceptions
            from google.cloud import storage
            from google.cloud.storage.retry import DEFAULT_RETRY
        except ImportError as error:
            raise not_installed("gs", "gs") from error
        self._place = f"gs://{name}"
        self._exceptions = exceptions
        with self._errors():
            self._client = storage.Client(project=None)
            # A redirect is an error: requests must reach no host but the one that they were meant for.
            self._client._http.max_redirects = 0  # noqa: SLF001 - there is no public way to set it
            # The library asks for the bucket's own data, for traces, at first and after each 404.
            self._client._bucket_metadata_cache = None  # noqa: SLF001 - the public way is a variable of the process
        self._bucket = self._client.bucket(name)
        self._exists = False
        self._bounds: Any = {"retry": DEFAULT_RETRY.with_timeout(_RETRY_SECONDS), "timeout": _TIMEOUT}

    def put(self, key: str, data: bytes) -> None:
        """Writes an object in one call."""
        with self._errors():
            self._bucket.blob(key).upload_from_string(data, _TYPE, checksum="crc32c", **self._bounds)

    def put_new(self, key: str, data: bytes) -> bool:
        """Writes an object unless there is one of this key; returns whether it did."""
        with self._errors():
            try:
                self._bucket.blob(key).upload_from_string(data, _TYPE, if_generation_match=0, **self._bounds)
            except self._exceptions.PreconditionFailed:
                return False
        return True

    def begin(self, key: str) -> Upload:
        """Begins an upload in parts."""
        return _Upload(self, self._bucket.blob(key), self._bounds)

    def get(self, key: str, start: int, end: int | None, version: str | None) -> Block:
        """Returns a range of an object."""
        if end is not None and start >= end:
            return Block(b"", version)
        blob = self._bucket.blob(key)
        with self._errors():
            try:
                data = blob.download_as_bytes(
                    start=start,
                    end=None if end is None else end - 1,
                    raw_download=True,
                    if_generation_match=None if version is None else int(version),
                    **self._bounds,
                )
            except self._exceptions.RequestRangeNotSatisfiable as error:
                # Either this is the end, or a shorter object has taken its place.
                blob.reload(**self._bounds)
                if version is not None and str(blob.generation) != version:
                    raise changed(self._place, key) from error
                return Block(b"", version)
            except self._exceptions.NotFound as error:
                self._check_bucket()
                raise absent(self._place, key) from error
            except self._exceptions.PreconditionFailed as error:
                raise changed(self._place, key) from error
        found = None if blob.generation is None else str(blob.generation)
        if version is not None and found != version:
            raise changed(self._place, key)
        return Block(data, found)

    def head(self, key: str) -> Entry | None:
        """Returns the entry of one object; None where there is none."""
        with self._errors():
            try:
                blob = self._bucket.blob(key)
                blob.reload(**self._bounds)
            except self._exceptions.NotFound:
                self._check_bucket()
                return None
            self._exists = True
            return _entry(blob)

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yields the objects whose keys begin with a prefix."""
        with self._errors():
            for blob in self._client.list_blobs(self._bucket, prefix=prefix, **self._bounds):
                yield _entry(blob)

    def prefixes(self, prefix: str) -> Iterator[str]:
        """Yields the prefixes up to the next slash of the keys that begin with a prefix."""
        with self._errors():
            pages = self._client.list_blobs(self._bucket, prefix=prefix, delimiter="/", **self._bounds)
            for page in pages.pages:
                yield from page.prefixes

    def delete(self, keys: list[str]) -> None:
        """Removes objects, many of them in one call."""
        with self._errors():
            if len(keys) == 1:
                self._delete(keys[0])
                return
            for first in range(0, len(keys), _BATCH):
                # It may be repeated: what is gone stays gone.
                self._bounds["retry"](self._delete_many)(keys[first : first + _BATCH])

    def _delete_many(self, keys: list[str]) -> None:
        """Removes objects in one call, by hand: the library's batch has no public way to the answer for each object."""
        boundary = secrets.token_hex()
        folder = f"/storage/v1/b/{self._bucket.name}/o"
        parts = [
            f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <{number}>\r\n\r\n"
            f"DELETE {folder}/{quote(key, safe='')} HTTP/1.1\r\n\r\n\r\n"
            for number, key in enumerate(keys)
        ]
        answer = self._client._http.post(  # noqa: SLF001 - there is no public way to this call
            f"{self._client.api_endpoint}/batch/storage/v1",
            data="".join((*parts, f"--{boundary}--\r\n")),
            headers={"Content-Type": f"multipart/mixed; boundary={boundary}"},
            timeout=_TIMEOUT,
        )
        if not answer.ok:
            raise self._exceptions.from_http_response(answer)
        statuses = [int(status) for status in _STATUS_LINE.findall(answer.content)]
        if len(statuses) != len(keys):
            raise self._exceptions.ServiceUnavailable(f"{len(statuses)} of {len(keys)} deletes were answered")
        for key, status in zip(keys, statuses, strict=True):
            if status >= 400 and status != 404:
                raise self._exceptions.from_http_status(status, f"the delete of {key} was refused: {_reason(answer)}")
        if 404 in statuses:
            self._check_bucket()

    def _delete(self, key: str) -> None:
        try:
            self._bucket.blob(key).delete(**self._bounds)
        except self._exceptions.NotFound:
            self._check_bucket()

    def _check_bucket(self) -> None:
        """Raises the library's error where there is no bucket: without it, each object would seem to be missing."""
        if not self._exists:
            # Not the bucket's own data, for which the role of an account for objects is not enough.
            next(iter(self._client.list_blobs(self._bucket, max_results=1, **self._bounds)), None)
            self._exists = True

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, MemoryError):
            raise
        except Exception as error:
            # A call that was repeated in vain fails with an error of its own, which has the last one.
            last = getattr(error, "cause", None) or error
            answer = getattr(last, "response", None)
            status = getattr(last, "code", None) or getattr(answer, "status_code", None)
            if type(error).__name__ in _CREDENTIALS:
                status = 401
            raise failure(self._place, error, status if isinstance(status, int) else None, _ADVICE) from error


class _Upload:
    """A resumable upload."""

    def __init__(self, bucket: GoogleBucket, blob: Any, bounds: Any) -> None:
        self._errors = bucket._errors  # noqa: SLF001 - one unit
        self._file = blob.open(
            "wb", chunk_size=_PART_BYTES, ignore_flush=True, content_type=_TYPE, checksum="crc32c", **bounds
        )

    def add(self, part: bytes) -> None:
        """Uploads the next part."""
        with self._errors():
            self._file.write(part)

    def complete(self, last: bytes) -> None:
        """Uploads the last part, and shows the object."""
        with self._errors():
            self._file.write(last)
            self._file.close()

    def abandon(self) -> None:
        """Gives the upload up, and removes its parts."""
        with self._errors():
            self._file.terminate()


_STATUS_LINE = re.compile(rb"^HTTP/[0-9.]+ ([0-9]{3})", re.MULTILINE)
_MESSAGE = re.compile(rb'"message": *"([^"]{1,300})')


def _reason(answer: Any) -> str:
    """Returns the first reason in the answer to a batch of calls."""
    found = _MESSAGE.search(answer.content)
    return found[1].decode(errors="replace") if found else "no reason given"


_TYPE = "application/octet-stream"
_CREDENTIALS = {"DefaultCredentialsError", "InvalidOperation", "RefreshError"}


def _entry(blob: Any) -> Entry:
    return Entry(blob.name, int(blob.size or 0), blob.updated.timestamp())
