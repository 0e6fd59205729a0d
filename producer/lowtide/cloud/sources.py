"""Finds, checks and reads requests in Cloud Storage or BigQuery, at `submit`.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-from-bigquery and
.../batch-prediction-from-cloud-storage (input formats).
"""

from __future__ import annotations

import io
import logging
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import msgspec

from lowtide.addresses import Objects, check_tables, is_dataset, is_under, parse_objects, parse_table
from lowtide.cloud.clients import bigquery_client, missing_extra, storage_client
from lowtide.cloud.datasets import read_dataset
from lowtide.errors import InvalidBatch, InvalidRequest, SourceError
from lowtide.first_answer import NoAnswer, first_answer
from lowtide.options import Options, check_key_column
from lowtide.protocol import Part
from lowtide.settings import Settings
from lowtide.shaping import file_lines, is_plain, json_lines, json_value
from lowtide.spool import Accepted, InPlaceWriter, RequestWriter, Writer
from lowtide.states import Kind, ProviderName

if TYPE_CHECKING:
    from google.cloud.bigquery import Table
    from google.cloud.storage import Blob

log = logging.getLogger(__name__)

_CHUNK_BYTES = 8 << 20
_BUFFER_BYTES = 1 << 20
_PAGE_ROWS = 2_000
_NAME = re.compile(r".*\.(jsonl|ndjson|json)(\.(gz|gzip|zst|zstd))?", re.IGNORECASE | re.DOTALL)
"""Names of the objects under a prefix that are read."""
_NAMES = ".jsonl object (or .ndjson or .json, also with .gz or .zst)"
_NAMES_SHOWN = 5
_KEY = re.compile(r"[A-Za-z_][ -~]{0,1023}")
_WORDS = frozenset({"true", "false", "null", "none", "nan", "inf", "infinity", "yes", "no", "t", "f", "y", "n"})
_KEY_TYPES = ("STRING", "INTEGER", "INT64")
_REFUSED_TYPES = frozenset({"ARRAY", "STRUCT", "RECORD", "RANGE", "DATETIME", "GEOGRAPHY"})
_ADDED_COLUMNS = frozenset({"response", "status", "processed_time"})
"""Columns that an output table has besides those of its source. Names of columns have no letter case in BigQuery."""
_DEFINITE_CODES = frozenset({400, 401, 403, 404, 405, 409, 410, 412, 416})
"""HTTP statuses that would be the same at another try."""
_decode = msgspec.json.Decoder().decode


class Limits(NamedTuple):
    """The most that one job may hold."""

    requests: int
    bytes: int


class WriterOf(Protocol):
    """Opens a writer for the batch's requests, in the form that a source needs."""

    def __call__(self, form: type[Writer]) -> Writer:
        """Returns a writer, to use as a context manager."""


class Source(Protocol):
    """Requests at a user's place in Google Cloud."""

    parts: list[Part]
    """The objects, table or dataset that the provider would read in place, as they were found."""

    def take(self, writer_of: WriterOf, limits: Limits | None) -> tuple[Accepted, bool]:
        """Reads and writes all requests; returns too whether the provider can read them in place.

        It can if they fit into one job of these limits and need no changes. `limits` None: never in place.
        """

    def place(self, position: int) -> tuple[str, int]:
        """Returns the URI that holds a position (0-based, over all files together), and the position within it."""


def open_source(uri: str | Sequence[str], settings: Settings, options: Options) -> Source:
    """Returns the source of these URIs. Raises `InvalidBatch` and `SourceError`."""
    uris = [uri] if isinstance(uri, str) else list(uri)
    for one in uris:
        if not is_dataset(one):
            _check_allowed(one, settings)
    try:
        if not uris[0].startswith("gs://"):
            if len(uris) > 1:
                raise InvalidBatch("several tables: submit a batch for each")
            if options.kind is Kind.EMBEDDING:
                raise InvalidBatch("Vertex AI takes embeddings from Cloud Storage, not from a table")
            if options.key_field is not None:
                raise InvalidBatch("key_field: a table has columns; name the one with the keys by key_column")
            return _table(uris[0], settings, options)
        check_key_column(options)
        return StorageFiles(uris, settings, options)
    except ValueError as error:
        raise InvalidBatch(str(error)) from None


def _table(uri: str, settings: Settings, options: Options) -> TableRows:
    """Returns the rows of a table, or of the table that a multimodal dataset names."""
    if not is_dataset(uri):
        return TableRows(uri, settings, options)
    _check_region(uri, None, settings)
    with _errors(uri):
        found = first_answer(lambda: read_dataset(uri, settings))
    if found.key not in (None, options.key_column):
        raise InvalidBatch(f"{uri} has its keys in the column {found.key}: name it by key_column")
    _check_allowed(found.uri, settings)
    return TableRows(found.uri, settings, options, request=found.request, dataset=uri)


def _check_allowed(uri: str, settings: Settings) -> None:
    if not is_under(uri, settings.vertex_locations):
        raise InvalidBatch(f"{uri} is not under any of LOWTIDE_VERTEX_LOCATIONS: {settings.vertex_locations}")


class StorageFiles:
    """One or more JSONL objects of Cloud Storage, or all under a prefix (`gs://bucket/folder/`, or with `*`)."""

    def __init__(self, uris: Sequence[str], settings: Settings, options: Options) -> None:
        self._name = uris[0] + (f" with {len(uris) - 1:,} more" if len(uris) > 1 else "")
        self._numbered = options.key_field is not None
        self._most = settings.max_bytes_per_job
        with _errors(self._name):
            self._client = first_answer(lambda: storage_client(settings))
        self._blobs = [blob for uri in uris for blob in self._found(uri)]
        self.parts = [
            Part(str(Objects(blob.bucket.name, blob.name)), int(blob.size or 0), blob.generation)
            for blob in self._blobs
        ]
        self._starts = [0]

    def _found(self, uri: str) -> list[Blob]:
        place = parse_objects(uri)
        prefix = place.path.endswith(("/", "*")) or not place.path
        with _errors(uri):
            bucket = self._client.bucket(place.bucket)
            if prefix:
                pages = self._client.list_blobs(bucket, prefix=place.path.removesuffix("*")).pages
                first = first_answer(lambda: list(next(pages, ())))
                return _requests_among(chain(first, chain.from_iterable(pages)), uri)
            blob = bucket.blob(place.path)
            first_answer(blob.reload)
            return [blob]

    def take(self, writer_of: WriterOf, limits: Limits | None) -> tuple[Accepted, bool]:
        """Leaves the lines in place if it can. At the first line that needs a change, it starts again with a copy."""
        if limits is not None and self._may_stay(limits):
            with writer_of(InPlaceWriter) as in_place:
                if (accepted := self._take_in_place(in_place, limits.requests)) is not None:
                    return accepted, True
        with writer_of(RequestWriter) as writer:
            for position, _, item in self._items():
                writer.add(item, position)
            return writer.finish(self._name), False

    def _may_stay(self, limits: Limits) -> bool:
        """Returns whether the objects may be used in place, before their lines are read.

        Only keys in the field `key` are known again in the rows, and only this name is documented for JSON lines.
        """
        fits = self._bytes() <= limits.bytes
        return fits and not self._numbered and all(_is_plain_name(part.name) for part in self.parts)

    def _bytes(self) -> int:
        return sum(part.size for part in self.parts)

    def _take_in_place(self, writer: InPlaceWriter, max_requests: int) -> Accepted | None:
        for count, (position, offset, item) in enumerate(self._items(), 1):
            if offset is None:
                return None
            body = writer.add_at(offset, item, position)
            if not _as_it_is(item, body) or writer.groups > 1 or count > max_requests:
                return None
        return writer.finish_at(self._bytes(), self._name)

    def _items(self) -> Iterator[tuple[int, int | None, object]]:
        """Yields each line's position, its byte offset and its value, position and offset over all files together.

        The offset is None where the line is not in the file as it is.
        """
        position = base = 0
        self._starts = [0]
        for blob, (uri, size, _) in zip(self._blobs, self.parts, strict=True):
            with _errors(uri), _opened(blob) as file:
                plain = is_plain(file)
                offset = base
                for line in file_lines(cast("IO[bytes]", file), uri, most=self._most, first=position):
                    for _, item in json_lines([line], position):
                        yield position, offset if plain else None, item
                    position += 1
                    offset += len(line)
            base += size
            self._starts.append(position)

    def place(self, position: int) -> tuple[str, int]:
        """Returns the file of a line, and the line's position in it."""
        index = min(bisect_right(self._starts, position), len(self.parts)) - 1
        return self.parts[index].name, position - self._starts[index]


def _is_plain_name(uri: str) -> bool:
    """Whether a worker can name this object to the provider."""
    with suppress(ValueError):
        return uri.endswith(".jsonl") and str(parse_objects(uri)) == uri
    return False


def _requests_among(found: Iterable[Blob], uri: str) -> list[Blob]:
    """The objects that hold requests, by their names. Raises `SourceError` where there are none."""
    blobs = [blob for blob in found if not blob.name.endswith("/")]
    taken = [blob for blob in blobs if _NAME.fullmatch(blob.name)]
    left = [blob.name for blob in blobs if not _NAME.fullmatch(blob.name)]
    shown = ", ".join(left[:_NAMES_SHOWN]) + (", ..." if len(left) > _NAMES_SHOWN else "")
    if not taken:
        there = f"; there is {shown}" if left else ""
        raise SourceError(f"{uri}: no {_NAMES} has this prefix{there}")
    if left:
        log.warning("%s: %d of %d objects are no %s, and are not read: %s", uri, len(left), len(blobs), _NAMES, shown)
    return taken


def _opened(blob: Blob) -> io.BufferedReader:
    """Opens an object for reading. It reads ranges of one generation, so that a change meanwhile is an error.

    Raw, because Google's client would decompress each range of an object with a content encoding by itself.
    """
    ranges = blob.open("rb", chunk_size=_CHUNK_BYTES, if_generation_match=blob.generation, raw_download=True)
    return io.BufferedReader(cast("io.RawIOBase", ranges), _BUFFER_BYTES)


def _as_it_is(item: object, body: bytes) -> bool:
    """Returns whether the line needs no change, and its key is one that no importer reads as another type."""
    if not isinstance(item, Mapping) or item.keys() != {"key", "request"}:
        return False
    key = item["key"]
    if not isinstance(key, str) or not _KEY.fullmatch(key) or key.lower() in _WORDS:
        return False
    return bool(_decode(body) == item["request"])


class TableRows:
    """The rows of a BigQuery table: a key, a request, and columns that come back as metadata.

    - `request`: the column with the requests.
    - `dataset`: the multimodal dataset that names the table, which the provider is to read in its place.
    """

    def __init__(
        self, uri: str, settings: Settings, options: Options, *, request: str = "request", dataset: str | None = None
    ) -> None:
        place = parse_table(uri)
        if not place.table:
            raise InvalidBatch(f"{uri} is a dataset; name a table: bq://project.dataset.table")
        self._uri, self._request = uri, request
        self._key = key_column = options.key_column
        to_objects = (options.destination or "").startswith("gs://")
        # Output in Cloud Storage would have the key under the column's name, which the reader of rows does not know.
        # Nothing says whether a job may read a dataset and write to Cloud Storage.
        self._findable = not to_objects or (key_column == "key" and dataset is None)
        _check_region(uri, None, settings)
        with _errors(uri):
            self._client = first_answer(lambda: bigquery_client(settings))
            self._table = first_answer(lambda: self._client.get_table(".".join(place)))
            where = self._client.get_dataset(f"{place.project}.{place.dataset}").location
        _check_region(uri, where, settings)
        self.parts = [Part(dataset or uri, int(self._table.num_bytes or 0), _last_change(self._table))]
        columns = {field.name: field for field in self._table.schema}
        _check_column(uri, columns, key_column, "the key (key_column names another)", _KEY_TYPES)
        _check_column(uri, columns, request, "the request", ("JSON", "STRING"))
        for name, field in columns.items():
            if field.field_type in _REFUSED_TYPES or field.mode == "REPEATED":
                kind = "ARRAY" if field.mode == "REPEATED" else field.field_type
                raise InvalidBatch(f"{uri}: column {name} is of type {kind}, which Vertex AI does not import")
        clashes = [name for name in columns if name.lower() in _ADDED_COLUMNS]
        if clashes and options.provider is ProviderName.VERTEX:
            raise InvalidBatch(
                f"{uri}: column {clashes[0]} has the name of one that Vertex AI adds to its output "
                f"({', '.join(sorted(_ADDED_COLUMNS))}): rename it, or submit a table without it"
            )
        self._as_text = columns[request].field_type == "STRING"
        self._extra = [name for name in columns if name not in (key_column, request)]

    def take(self, writer_of: WriterOf, limits: Limits | None) -> tuple[Accepted, bool]:
        """Copies the rows to the spool, because a table has no offsets at which to find rows that must run again."""
        with writer_of(RequestWriter) as writer:
            for position, item in self._items():
                writer.add(item, position)
            accepted = writer.finish(self._uri)
        fits = limits is not None and accepted.total <= limits.requests and accepted.bytes <= limits.bytes
        return accepted, fits and accepted.groups == 1 and self._findable

    def _items(self) -> Iterator[tuple[int, object]]:
        """Yields each row's position, and the row as a request line."""
        with _errors(self._uri):
            for number, row in enumerate(self._client.list_rows(self._table, page_size=_PAGE_ROWS)):
                metadata = {name: _shown(row[name]) for name in self._extra if row[name] is not None}
                request = row[self._request]
                if self._as_text and request is not None:
                    request = json_value(request, number, "request")
                if row[self._key] is None:
                    raise InvalidRequest(f"column {self._key} is NULL", field="key", position=number)
                yield number, {"key": row[self._key], "request": request, "metadata": metadata}

    def place(self, position: int) -> tuple[str, int]:
        """Returns the table, and the position as it is."""
        return self._uri, position


def _last_change(table: Table) -> int | None:
    """When a table was last changed, in Unix milliseconds."""
    return None if table.modified is None else round(table.modified.timestamp() * 1000)


def check_destination(uri: str, settings: Settings) -> None:
    """Raises `SourceError` unless the destination is empty."""
    with _errors(uri):
        taken = _has_objects if uri.startswith("gs://") else _has_table
        if first_answer(lambda: taken(uri, settings)):
            raise SourceError(f"{uri} has data already: name an empty place")


def _has_objects(uri: str, settings: Settings) -> bool:
    place = parse_objects(uri)
    prefix = place.path.rstrip("/")
    listing = storage_client(settings).list_blobs(place.bucket, prefix=f"{prefix}/" if prefix else "", max_results=1)
    return any(True for _ in listing)


def _has_table(uri: str, settings: Settings) -> bool:
    place = parse_table(uri)
    client = bigquery_client(settings)
    dataset = client.get_dataset(f"{place.project}.{place.dataset}")
    _check_region(uri, dataset.location, settings)
    return bool(place.table) and any(found.table_id == place.table for found in client.list_tables(dataset))


def _check_column(uri: str, columns: Mapping[str, Any], name: str, what: str, types: Sequence[str]) -> None:
    if name not in columns:
        raise InvalidBatch(f"{uri}: no column {name} for {what}; it has {', '.join(columns)}")
    if columns[name].field_type not in types:
        raise InvalidBatch(f"{uri}: column {name} is of type {columns[name].field_type}, not {' or '.join(types)}")


def _check_region(uri: str, dataset: str | None, settings: Settings) -> None:
    """Raises `InvalidBatch` for a place that the jobs cannot use. `dataset` is the location of its dataset."""
    try:
        check_tables(settings.google_cloud_location, dataset)
    except ValueError as error:
        raise InvalidBatch(f"{uri}: {error}") from None


def _shown(value: object) -> str:
    return value if isinstance(value, str) else str(msgspec.to_builtins(value, builtin_types=(float, int)))


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Turns errors of Google's clients about a place into `SourceError`."""
    try:
        from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError
        from requests import RequestException
    except ImportError as error:
        raise missing_extra() from error
    try:
        yield
    except GoogleAPICallError as error:
        code = int(error.code or 0)
        said = {
            403: "no permission: the credentials must be able to read it",
            404: "there is no such object, bucket, table or dataset",
            412: "it changed while it was read; submit again",
        }.get(code)
        text = f"{uri}: {said or error.message}" + (f" ({error.message})" if said else "")
        raise SourceError(text, transient=code not in _DEFINITE_CODES) from error
    except (DefaultCredentialsError, RefreshError) as error:
        # Without the text, which may be long, and names no variable of ours.
        raise SourceError(
            f"{uri}: no usable credentials of Google Cloud ({type(error).__name__}); run `gcloud auth "
            "application-default login`, or set LOWTIDE_VERTEX_CREDENTIALS to the key file of a service account",
            transient=True,
        ) from error
    except NoAnswer as error:
        raise SourceError(f"{uri}: {error}", transient=True) from None
    except (GoogleAPIError, GoogleAuthError, RequestException) as error:
        raise SourceError(f"{uri}: {type(error).__name__}: {error}", transient=True) from error
