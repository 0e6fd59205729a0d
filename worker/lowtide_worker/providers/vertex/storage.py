"""The objects in Cloud Storage that Vertex AI's jobs read and write: request files and predictions.

Lowtide's own objects have these names:

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
"""Names of predictions. `incremental_predictions.jsonl` is a running job's working file and does not match."""


class VertexStorage:
    """The objects under `vertex_storage`, and output under one of the users' `vertex_locations`.

    Every method raises the errors of `cloud_failures`.
    """

    def __init__(self, settings: WorkerSettings, root: str) -> None:
        self._settings = settings
        self._root = parse_objects(root)
        timeout = settings.provider_timeout_seconds
        self._call_options: dict[str, Any] = {"timeout": timeout, "retry": DEFAULT_RETRY.with_timeout(timeout)}

    @cached_property
    def _client(self) -> Client:
        return storage_client(self._settings)

    def upload(self, display_name: str, data: IO[bytes]) -> str:
        """Writes a request file and returns its URI.

        - `display_name`: the job's, which names the file.
        - `data`: a seekable file of JSON lines.

        Raises `Refused` if the bucket does not exist.
        """
        place = self._root.under(f"inputs/{display_name}.jsonl")
        size = data.seek(0, io.SEEK_END)
        data.seek(0)
        with cloud_failures(place):
            blob = self._blob(place)
            blob.chunk_size = MOST_AT_ONCE
            try:
                blob.upload_from_file(data, size=size, content_type="application/jsonl", **self._call_options)
            except NotFound as error:
                message = f"bucket {place.bucket} does not exist (LOWTIDE_VERTEX_STORAGE)"
                raise Refused(ResultError(reason="NO_BUCKET", message=message, code=5)) from error
        return str(place)

    def exists(self, uri: str) -> bool:
        """Returns True if a request file exists. Raises `Missing` if it does not."""
        with cloud_failures(uri):
            if not self._blob(parse_objects(uri)).exists(**self._call_options):
                raise Missing(ResultError(reason="NO_INPUT", message=f"{uri} is gone"))
        return True

    def inputs(self, page_token: str | None) -> tuple[list[ProviderInput], str | None]:
        """Returns a page of the request files, and the next page's token."""
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
        """Deletes a request file, if it is in Lowtide's folder. One that is gone is no error."""
        place = parse_objects(uri)
        if is_under(uri, [str(self._root.under("inputs"))]):
            self._delete(place)

    def output(self, display_name: str, destination: str | None) -> str:
        """Returns the URI of the folder that a job writes to, under the user's destination or Lowtide's folder.

        Each job has a folder of its own: two jobs that start at the same instant would overwrite each other's output.
        """
        folder = parse_objects(destination) if destination else self._root.under("outputs")
        return str(folder.under(display_name))

    def parts(self, folder: str) -> list[Part]:
        """Returns the shards of a job's predictions. Raises `Refused` for a folder outside the configured places."""
        place = self._allowed(folder)
        inside = _inside(place)
        return [
            Part(str(place._replace(path=blob.name)), blob.size)
            for blob in every(partial(self._page, inside))
            if _PREDICTIONS.fullmatch(blob.name.removeprefix(inside.path))
        ]

    def read(self, part: str, start: int, end: int) -> bytes:
        """Returns the whole lines that begin within the bytes [start, end) of an object.

        Raises `Refused` for an object outside the configured places.
        """
        place = self._allowed(part)
        with cloud_failures(part):
            blob = self._blob(place)

            def read(first: int, last: int) -> bytes:
                try:
                    return bytes(blob.download_as_bytes(start=first, end=last - 1, **self._call_options))
                except RequestRangeNotSatisfiable:
                    return b""

            return whole_lines(read, start, end)

    def delete_output(self, location: str) -> None:
        """Deletes a job's predictions, if they are in Lowtide's folder."""
        if is_under(location, [str(self._root.under("outputs"))]):
            self._delete_all(parse_objects(location))

    def clear(self, display_name: str) -> None:
        """Deletes all predictions of jobs of this display name in Lowtide's folder."""
        self._delete_all(self._root.under(f"outputs/{display_name}"))

    def _delete_all(self, folder: Objects) -> None:
        for blob in every(partial(self._page, _inside(folder))):
            self._delete(folder._replace(path=blob.name))

    def _delete(self, place: Objects) -> None:
        with cloud_failures(place):
            try:
                self._blob(place).delete(**self._call_options)
            except NotFound:
                return

    def _page(self, folder: Objects, token: str | None) -> tuple[list[Blob], str | None]:
        """Returns a page of the objects under a folder, and the next page's token."""
        with cloud_failures(folder):
            listing = self._client.list_blobs(
                folder.bucket, prefix=folder.path, page_token=token, page_size=_PAGE_SIZE, **self._call_options
            )
            return list(next(listing.pages, ())), listing.next_page_token

    def _blob(self, place: Objects) -> Blob:
        return self._client.bucket(place.bucket).blob(place.path)

    def _allowed(self, uri: str) -> Objects:
        """Parses a URI that the provider gave. Raises `Refused` if it is outside the configured places."""
        if not is_under(uri, [str(self._root), *self._settings.vertex_locations]):
            message = f"{uri} is outside LOWTIDE_VERTEX_STORAGE and LOWTIDE_VERTEX_LOCATIONS"
            raise Refused(ResultError(reason="OUTSIDE_ROOT", message=message))
        return parse_objects(uri)


def _inside(folder: Objects) -> Objects:
    return folder._replace(path=folder.path.rstrip("/") + "/")


@contextmanager
def cloud_failures(place: object) -> Iterator[None]:
    """Turns what Google's storage clients raise within the `with` block into a `ProviderError` that names the place.

    - `place`: the URI that is read or written.

    403 is `Denied` here: without a permission the job waits until it is granted.
    """
    try:
        yield
    except GoogleAPICallError as error:
        code = int(error.code or 0)
        hint = "; the workers' credentials lack the permission" if code == 403 else ""
        found = ResultError(reason=error.reason or f"HTTP_{code}", message=f"{place}: {error.message}{hint}", code=code)
        raise Denied(found, http_status=code) if code == 403 else failure(code, found) from error
    except (DefaultCredentialsError, RefreshError) as error:
        raise Denied(ResultError(reason="NO_CREDENTIALS", message=f"{type(error).__name__}: {error}")) from error
    except (GoogleAPIError, GoogleAuthError, RequestException, OSError) as error:
        found = ResultError(reason="UNAVAILABLE", message=f"{place}: {type(error).__name__}: {error}")
        raise Unavailable(found) from error
