"""The objects in Cloud Storage that Vertex AI's jobs read and write: request files and predictions.

Lowtide's own objects have these names:

<LOWTIDE_VERTEX_STORAGE>/inputs/<display name>.jsonl (request files)
<LOWTIDE_VERTEX_STORAGE>/inputs/<display name>/<number>.jsonl (pinned sources)
<LOWTIDE_VERTEX_STORAGE>/outputs/<display name>/<suffix>/prediction-model-<time>/predictions.jsonl
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
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
from lowtide_worker.providers.protocol import (
    Denied,
    IncompleteOutput,
    Missing,
    Output,
    Part,
    ProviderInput,
    Refused,
    Unavailable,
)
from lowtide_worker.providers.ranges import whole_lines
from lowtide_worker.providers.upload_slice import MOST_AT_ONCE
from lowtide_worker.providers.vertex.places import new_suffix, readable_objects
from lowtide_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

_PAGE_SIZE = 1000
_PREDICTIONS = re.compile(r"predictions\.jsonl(-(?P<number>\d+)-of-(?P<of>\d+))?", re.ASCII)
"""Names of predictions. `incremental_predictions.jsonl` is a running job's working file and does not match."""


class VertexStorage:
    """The objects under `vertex_storage`, and output under one of the users' `vertex_locations`.

    Every method raises the errors of `cloud_failures`.
    """

    def __init__(self, settings: WorkerSettings, root: str) -> None:
        self._settings = settings
        self._root = parse_objects(root)
        self._roots = [root, *settings.vertex_locations]
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
                raise self._no_bucket() from error
        return str(place)

    def _no_bucket(self) -> Refused:
        message = f"bucket {self._root.bucket} does not exist (LOWTIDE_VERTEX_STORAGE)"
        return Refused(ResultError(reason="NO_BUCKET", message=message, code=5))

    def exists(self, uri: str) -> bool:
        """Returns True if a request file exists. Raises `Missing` if it does not."""
        with cloud_failures(uri):
            if not self._blob(parse_objects(uri)).exists(**self._call_options):
                raise Missing(ResultError(reason="NO_INPUT", message=f"{uri} is gone"))
        return True

    def inputs(self, page_token: str | None) -> tuple[list[ProviderInput], str | None]:
        """Returns a page of the request files, and the next page's token.

        Pinned sources are left out: `clear` deletes them.
        """
        folder = self._root.under("inputs/")
        blobs, token = self._page(folder, page_token)
        found = [
            ProviderInput(
                name=str(folder._replace(path=blob.name)),
                display_name=blob.name.removeprefix(folder.path).removesuffix(".jsonl"),
            )
            for blob in blobs
            if "/" not in blob.name.removeprefix(folder.path)
        ]
        return found, token

    def delete_input(self, uri: str) -> None:
        """Deletes a request file, if it is in Lowtide's folder. One that is gone is no error."""
        place = parse_objects(uri)
        if is_under(uri, [str(self._root.under("inputs"))]):
            self._delete(place)

    def pin(self, display_name: str, sources: Sequence[Part]) -> list[str]:
        """Has Cloud Storage copy the accepted generations of users' objects into a job's folder; returns the copies.

        So a later version of an object changes no job, and no name is taken for a pattern. The data does not pass
        through this process. Raises `Refused` for an object that is gone or written over.
        """
        folder = self._root.under(f"inputs/{display_name}/")
        try:
            there = {blob.name for blob in every(partial(self._page, folder))}
        except Missing as error:
            raise self._no_bucket() from error
        copies = [folder.under(f"{number:05}.jsonl") for number in range(len(sources))]
        for source, copy in zip(sources, copies, strict=True):
            if copy.path not in there:
                self._copy(source, copy)
        return [str(copy) for copy in copies]

    def _copy(self, source: Part, copy: Objects) -> None:
        place = readable_objects(source.name, self._roots, None)
        original, token = self._blob(place, source.generation), None
        with cloud_failures(source.name):
            try:
                while True:
                    token, _, _ = self._blob(copy).rewrite(original, token, **self._call_options)
                    if token is None:
                        return
            except NotFound as error:
                message = (
                    f"{source.name} is not what it was at submit: it is gone or written over. Leave a source as it is "
                    f"until its batch has ended, and submit again ({error.message})"
                )
                raise Refused(ResultError(reason="SOURCE_CHANGED", message=message, code=5)) from error

    def output(self, display_name: str, destination: str | None) -> str:
        """Returns the URI of the folder that one create call writes to, in the user's destination or Lowtide's folder.

        Raises `Refused` for a destination in Lowtide's folder, whose objects it deletes.
        """
        if destination and is_under(destination, [str(self._root)]):
            message = f"the destination {destination} is in LOWTIDE_VERTEX_STORAGE, where Lowtide deletes; name another"
            raise Refused(ResultError(reason="DESTINATION_OF_LOWTIDE", message=message, code=3))
        folder = parse_objects(destination) if destination else self._root.under("outputs")
        return str(folder.under(display_name).under(new_suffix()))

    def parts(self, output: Output) -> list[Part]:
        """Returns the shards of a job's predictions, each with its generation.

        Raises `IncompleteOutput` if the output must have rows and some shard is missing or empty, and `Refused` for a
        folder outside the configured places that is not the job's own.
        """
        inside = _inside(readable_objects(output.location, self._roots, output.display_name))
        shards = [
            (found, Part(str(inside._replace(path=blob.name)), int(blob.size or 0), blob.generation))
            for blob in every(partial(self._page, inside))
            if (found := _PREDICTIONS.fullmatch(blob.name.removeprefix(inside.path)))
        ]
        if output.rows:
            _check_whole(inside, shards)
        return [part for _, part in shards]

    def read(self, part: Part, start: int, end: int) -> bytes:
        """Returns the whole lines that begin within the bytes [start, end) of one generation of an object.

        Raises `Missing` if it is gone or written over, and `Refused` for an object outside the configured places that
        is in no job's folder.
        """
        place = readable_objects(part.name, self._roots, None)
        with cloud_failures(part.name):
            blob = self._blob(place, part.generation)

            def read(first: int, last: int) -> bytes:
                try:
                    return bytes(blob.download_as_bytes(start=first, end=last - 1, **self._call_options))
                except RequestRangeNotSatisfiable:
                    return b""

            return whole_lines(read, start, end)

    def delete_output(self, location: str, display_name: str) -> None:
        """Deletes a job's predictions, if they are in its folder among Lowtide's."""
        if is_under(location, [str(self._root.under(f"outputs/{display_name}"))]):
            self._delete_all(parse_objects(location))

    def clear(self, display_name: str) -> None:
        """Deletes all predictions and pinned sources of jobs of this display name in Lowtide's folder."""
        for kind in ("outputs", "inputs"):
            self._delete_all(self._root.under(f"{kind}/{display_name}"))

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

    def _blob(self, place: Objects, generation: int | None = None) -> Blob:
        return self._client.bucket(place.bucket).blob(place.path, generation=generation)


def _inside(folder: Objects) -> Objects:
    return folder._replace(path=folder.path.rstrip("/") + "/")


def _check_whole(folder: Objects, shards: Sequence[tuple[re.Match[str], Part]]) -> None:
    """Raises `IncompleteOutput` if a shard of `-00000-of-0000N` is missing, or any is empty, or there is none."""
    numbered = [found for found, _ in shards if found["of"]]
    expected = max((int(found["of"]) for found in numbered), default=1)
    there = len({found["number"] for found in numbered}) if numbered else len(shards)
    empty = sum(not part.size for _, part in shards)
    if there < expected or empty:
        raise IncompleteOutput(f"{folder} has {there} of {expected} files of predictions, {empty} of them empty")


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
