"""Vertex AI's side of Cloud Storage: request files in, predictions out, under a folder of our own.

<LOWTIDE_VERTEX_STORAGE>/inputs/<display name>.jsonl
<LOWTIDE_VERTEX_STORAGE>/outputs/<display name>/prediction-model-<time>/predictions.jsonl
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import IO, TYPE_CHECKING, Any

from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError, NotFound, RequestRangeNotSatisfiable
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError
from google.cloud.storage.retry import DEFAULT_RETRY
from requests import RequestException

from lowtide.addresses import Objects, is_under, parse_objects
from lowtide.cloud import storage_client
from lowtide.models import ResultError
from lowtide_worker.providers.google import failure
from lowtide_worker.providers.pages import every
from lowtide_worker.providers.protocol import Denied, Missing, Part, ProviderInput, Refused, Unavailable
from lowtide_worker.providers.ranges import whole_lines
from lowtide_worker.providers.upload_slice import MOST_AT_ONCE
from lowtide_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

_PAGE_SIZE = 1000
_PREDICTIONS = re.compile(r"predictions\.jsonl(-\d+-of-\d+)?")
"""Not `incremental_predictions.jsonl`, which a running job keeps for itself."""


class VertexStorage:
    """Objects under the folder that the settings give us, and output where the user wanted it."""

    def __init__(self, settings: WorkerSettings, root: str) -> None:
        self._settings = settings
        self._root = parse_objects(root)
        timeout = settings.provider_timeout_seconds
        self._patience: dict[str, Any] = {"timeout": timeout, "retry": DEFAULT_RETRY.with_timeout(timeout)}

    @cached_property
    def _client(self) -> Client:
        return storage_client(self._settings)

    def upload(self, display_name: str, data: IO[bytes]) -> str:
        """Writes a request file; returns its URI."""
        place = self._root.under(f"inputs/{display_name}.jsonl")
        size = data.seek(0, io.SEEK_END)
        data.seek(0)
        with cloud_failures(place):
            blob = self._blob(place)
            blob.chunk_size = MOST_AT_ONCE
            try:
                blob.upload_from_file(data, size=size, content_type="application/jsonl", **self._patience)
            except NotFound as error:
                message = f"bucket {place.bucket} does not exist (LOWTIDE_VERTEX_STORAGE)"
                raise Refused(ResultError(reason="NO_BUCKET", message=message, code=5)) from error
        return str(place)

    def exists(self, uri: str) -> bool:
        """Whether a request file is there. Raises `Missing` where it is not."""
        with cloud_failures(uri):
            if not self._blob(parse_objects(uri)).exists(**self._patience):
                raise Missing(ResultError(reason="NO_INPUT", message=f"{uri} is gone"))
        return True

    def inputs(self, page_token: str | None) -> tuple[list[ProviderInput], str | None]:
        """One page of the request files."""
        folder = self._root.under("inputs/")
        blobs, token = self._page(folder, page_token)
        found = [
            ProviderInput(
                name=str(folder._replace(path=blob.name)),
                display_name=blob.name.removeprefix(folder.path).removesuffix(".jsonl"),
            )
            for blob in blobs
        ]
        return found, token

    def delete_input(self, uri: str) -> None:
        """Deletes a request file of ours. One that is gone is no error."""
        place = parse_objects(uri)
        if is_under(uri, [str(self._root.under("inputs"))]):
            self._delete(place)

    def output(self, display_name: str, destination: str | None) -> str:
        """Where a job is to write: a folder of its own, since jobs of one instant would write over each other."""
        folder = parse_objects(destination) if destination else self._root.under("outputs")
        return str(folder.under(display_name))

    def parts(self, folder: str) -> list[Part]:
        """The shards of a job's predictions."""
        place = self._checked(folder)
        inside = _inside(place)
        return [
            Part(str(place._replace(path=blob.name)), blob.size)
            for blob in every(partial(self._page, inside))
            if _PREDICTIONS.fullmatch(blob.name.removeprefix(inside.path))
        ]

    def read(self, part: str, start: int, end: int) -> bytes:
        """The lines that begin in a range of a shard."""
        place = self._checked(part)
        with cloud_failures(part):
            blob = self._blob(place)

            def read(first: int, last: int) -> bytes:
                try:
                    return bytes(blob.download_as_bytes(start=first, end=last - 1, **self._patience))
                except RequestRangeNotSatisfiable:
                    return b""

            return whole_lines(read, start, end)

    def delete_output(self, location: str) -> None:
        """Deletes a job's predictions if they lie in our folder."""
        if is_under(location, [str(self._root.under("outputs"))]):
            self._delete_all(parse_objects(location))

    def clear(self, display_name: str) -> None:
        """Deletes all predictions of the jobs of this name in our folder."""
        self._delete_all(self._root.under(f"outputs/{display_name}"))

    def _delete_all(self, folder: Objects) -> None:
        for blob in every(partial(self._page, _inside(folder))):
            self._delete(folder._replace(path=blob.name))

    def _delete(self, place: Objects) -> None:
        with cloud_failures(place):
            try:
                self._blob(place).delete(**self._patience)
            except NotFound:
                return

    def _page(self, folder: Objects, token: str | None) -> tuple[list[Blob], str | None]:
        """One page of what lies under a folder, and the next one's token."""
        with cloud_failures(folder):
            listing = self._client.list_blobs(
                folder.bucket, prefix=folder.path, page_token=token, page_size=_PAGE_SIZE, **self._patience
            )
            return list(next(listing.pages, ())), listing.next_page_token

    def _blob(self, place: Objects) -> Blob:
        return self._client.bucket(place.bucket).blob(place.path)

    def _checked(self, uri: str) -> Objects:
        """Where the provider says output is must be where we or the user wanted it."""
        if not is_under(uri, [str(self._root), *self._settings.vertex_locations]):
            raise Refused(ResultError(reason="OUTSIDE_ROOT", message=f"{uri} is not under a configured place"))
        return parse_objects(uri)


def _inside(folder: Objects) -> Objects:
    return folder._replace(path=folder.path.rstrip("/") + "/")


@contextmanager
def cloud_failures(place: object) -> Iterator[None]:
    """Sorts what Google's storage clients raise into ours, naming the place."""
    try:
        yield
    except GoogleAPICallError as error:
        code = int(error.code or 0)
        hint = "; the workers' credentials lack the permission" if code == 403 else ""
        found = ResultError(reason=error.reason or f"HTTP_{code}", message=f"{place}: {error.message}{hint}", code=code)
        # Without a permission the job can wait for somebody to grant it.
        raise Denied(found, http_status=code) if code == 403 else failure(code, found) from error
    except (DefaultCredentialsError, RefreshError) as error:
        raise Denied(ResultError(reason="NO_CREDENTIALS", message=f"{type(error).__name__}: {error}")) from error
    except (GoogleAPIError, GoogleAuthError, RequestException, OSError) as error:
        found = ResultError(reason="UNAVAILABLE", message=f"{place}: {type(error).__name__}: {error}")
        raise Unavailable(found) from error
