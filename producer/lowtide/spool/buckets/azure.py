"""A container of Azure Blob Storage, by azure-storage-blob.

Source: https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lowtide.errors import SpoolError
from lowtide.spool.buckets.errors import absent, changed, failure, not_installed
from lowtide.spool.objects import Block, Upload
from lowtide.spool.storage import Entry

_ATTEMPTS = 4
_CONNECT_SECONDS, _READ_SECONDS = 5, 60
_BATCH = 256
"""Most deletes in one call."""
_ADVICE = {
    401: "set AZURE_STORAGE_CONNECTION_STRING",
    403: "the account needs the role Storage Blob Data Contributor on the container, and no policy may hold its blobs",
    404: "make the container, or set LOWTIDE_SPOOL_URL to one that exists",
}


class AzureContainer:
    """The calls of one container. AZURE_STORAGE_CONNECTION_STRING names the account, its endpoint and credentials."""

    def __init__(self, name: str) -> None:
        try:
            from azure.core import MatchConditions, exceptions
            from azure.storage.blob import BlobServiceClient
        except ImportError as error:
            raise not_installed("az", "az") from error
        self._place = f"az://{name}"
        self._exceptions = exceptions
        self._same = MatchConditions.IfNotModified
        account = os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
        if not account:
            raise SpoolError("a spool at az:// needs AZURE_STORAGE_CONNECTION_STRING, as the Azure portal shows it")
        with self._errors():
            service = BlobServiceClient.from_connection_string(
                account,
                retry_total=_ATTEMPTS,
                connection_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                max_single_put_size=64 << 20,
                max_single_get_size=64 << 20,
            )
            self._container = service.get_container_client(name)

    def put(self, key: str, data: bytes) -> None:
        """Writes a blob in one call."""
        with self._errors():
            self._container.upload_blob(key, data, overwrite=True)

    def put_new(self, key: str, data: bytes) -> bool:
        """Writes a blob unless there is one of this key; returns whether it did."""
        with self._errors():
            try:
                self._container.upload_blob(key, data, overwrite=False)
            except self._exceptions.ResourceExistsError:
                return False
        return True

    def begin(self, key: str) -> Upload:
        """Begins an upload in parts."""
        return _Upload(self, self._container.get_blob_client(key))

    def get(self, key: str, start: int, end: int | None, version: str | None) -> Block:
        """Returns a range of a blob."""
        if end is not None and start >= end:
            return Block(b"", version)
        wanted: dict[str, Any] = {"offset": start, "length": None if end is None else end - start}
        if version is not None:
            wanted.update(etag=version, match_condition=self._same)
        with self._errors():
            try:
                answer = self._container.download_blob(key, **wanted)
                return Block(answer.readall(), answer.properties.etag)
            except self._exceptions.ResourceModifiedError as error:
                raise changed(self._place, key) from error
            except self._exceptions.ResourceNotFoundError as error:
                if _code(error) == "ContainerNotFound":
                    raise
                raise absent(self._place, key) from error
            except self._exceptions.HttpResponseError as error:
                if error.status_code != 416:
                    raise
                # Either this is the end, or a shorter blob has taken its place.
                now = self._container.get_blob_client(key).get_blob_properties().etag
                if version is not None and now != version:
                    raise changed(self._place, key) from error
                return Block(b"", version)

    def head(self, key: str) -> Entry | None:
        """Returns the entry of one blob; None where there is none."""
        with self._errors():
            try:
                return _entry(self._container.get_blob_client(key).get_blob_properties())
            except self._exceptions.ResourceNotFoundError as error:
                if _code(error) == "ContainerNotFound":
                    raise
                return None

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yields the blobs whose keys begin with a prefix."""
        with self._errors():
            for found in self._container.list_blobs(name_starts_with=prefix):
                yield _entry(found)

    def prefixes(self, prefix: str) -> Iterator[str]:
        """Yields the prefixes up to the next slash of the keys that begin with a prefix."""
        with self._errors():
            for found in self._container.walk_blobs(name_starts_with=prefix, delimiter="/"):
                if found.name.endswith("/"):
                    yield found.name

    def delete(self, keys: list[str]) -> None:
        """Removes blobs, many of them in one call."""
        if len(keys) == 1:
            with self._errors():
                try:
                    self._container.delete_blob(keys[0])
                except self._exceptions.ResourceNotFoundError as error:
                    if _code(error) == "ContainerNotFound":
                        raise
            return
        for first in range(0, len(keys), _BATCH):
            with self._errors():
                answers = self._container.delete_blobs(*keys[first : first + _BATCH], raise_on_any_failure=False)
                for answer in answers:
                    if answer.status_code not in (202, 404):
                        code = answer.headers.get("x-ms-error-code", "")
                        raise failure(self._place, code or answer.reason, _status(answer.status_code, code), _ADVICE)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, MemoryError):
            raise
        except self._exceptions.AzureError as error:
            said = getattr(error, "message", None) or error
            status = _status(getattr(error, "status_code", None), _code(error))
            raise failure(self._place, said, status, _ADVICE) from error
        except ValueError as error:
            # Its text may hold the connection string.
            raise failure(self._place, "AZURE_STORAGE_CONNECTION_STRING cannot be read", 401, _ADVICE) from error


class _Upload:
    """Blocks that become a blob when they are committed. The service drops those that never are, after a week."""

    def __init__(self, container: AzureContainer, blob: Any) -> None:
        self._errors = container._errors  # noqa: SLF001 - one unit
        self._blob = blob
        # Two uploads of one blob must not mix their blocks. All ids of a blob must be of one length.
        self._upload = secrets.token_hex(4)
        self._ids: list[str] = []

    def add(self, part: bytes) -> None:
        """Uploads the next part."""
        self._ids.append(f"{self._upload}{len(self._ids):04x}")
        with self._errors():
            self._blob.stage_block(self._ids[-1], part)

    def complete(self, last: bytes) -> None:
        """Uploads the last part, and shows the blob."""
        self.add(last)
        with self._errors():
            self._blob.commit_block_list(self._ids)

    def abandon(self) -> None:
        """Gives the upload up. There is no call for it."""


def _entry(found: Any) -> Entry:
    return Entry(found.name, found.size, found.last_modified.timestamp())


def _status(status: int | None, code: str) -> int | None:
    """Returns the status of an answer; 403 for a blob that a policy holds, which Azure calls a conflict."""
    return 403 if code.startswith("BlobImmutable") else status


def _code(error: Any) -> str:
    return str(getattr(error, "error_code", "") or "")
