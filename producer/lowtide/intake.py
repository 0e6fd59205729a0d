"""The way of requests into the spool, from wherever a user has them, before their batch is recorded."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, Required, cast

from lowtide.addresses import is_dataset
from lowtide.budgets import labels_under
from lowtide.errors import InvalidBatch, InvalidRequest
from lowtide.limits import MAX_URI_CHARS
from lowtide.models import Request
from lowtide.options import BatchOptions, Options, check_key_column
from lowtide.protocol import Part
from lowtide.settings import Settings
from lowtide.shaping import file_lines, json_lines, shaper_of
from lowtide.spending import check_budgets, weighing
from lowtide.spool import Accepted, KeyIndex, RequestWriter, Spool, Writer
from lowtide.states import ProviderName
from lowtide.store import lane_of, small_enough

RequestLike = Request | Mapping[str, object]
"""A `Request`, or a mapping in the SDK's inline shape or the REST line shape."""
RequestsLike = Iterable[RequestLike] | Sequence[str] | str | os.PathLike[str] | BinaryIO
"""The requests of a batch, or the place where they are: see `BatchQueue.submit`."""


class BatchSubmission(BatchOptions, total=False):
    """One batch of `submit_many`: the arguments of `submit` by their names."""

    requests: Required[RequestsLike]
    """The requests of the batch: see `BatchQueue.submit`."""
    model: Required[str]
    """The model that answers all requests."""


class Intake(NamedTuple):
    """The requests of a batch before the batch is recorded: in the spool, in place, or here."""

    accepted: Accepted
    sources: Sequence[Part] = ()
    """Places where the provider reads the requests in place; else empty."""
    requests: bytes = b""
    """The requests of a small batch, which the store keeps with the record: see `lowtide.store.requests`."""

    def fingerprint(self, options: Options) -> str:
        """Returns a hash of the requests, and of the options that decide about their results."""
        kinds = (options.model, options.mode, options.on_result or "", options.provider, options.kind)
        parts = (self.accepted.fingerprint, *kinds, options.destination or "")
        # Short, because Redis keeps a hash whose values have at most 64 bytes in a third of the memory.
        return hashlib.blake2b("-".join(parts).encode(), digest_size=20).hexdigest()


class Receiver:
    """Writes the requests of batches to a spool, but those of small batches, which it returns.

    It checks them as it reads them, once and in order.
    """

    def __init__(self, settings: Settings, spool: Spool) -> None:
        self._settings = settings
        self._spool = spool

    def take(
        self, batch_id: str, options: Options, requests: object, *, put: Callable[[str, bytes], object] | None = None
    ) -> Intake:
        """Reads the requests of a batch from where they are.

        `put` writes the one blob of a packed batch, in place of `Spool.put`. Raises `InvalidRequest`, `InvalidBatch`,
        `SourceError` and `SpoolError`; the caller removes what was written.
        """
        uris = cloud_uris(requests)
        if uris is not None:
            return self._from_cloud(batch_id, options, uris)
        blobs: dict[str, bytes] = {}
        accepted = self._given(batch_id, options, cast("Iterable[RequestLike]", requests), blobs.__setitem__)
        intake = self.intake(options, accepted)
        is_bundled = lane_of(options, self._settings, total=accepted.total, sources=()) != ""
        for name, packed in blobs.items():
            if is_bundled and (small := small_enough(packed, self._settings.small_batch_bytes)):
                return intake._replace(requests=small)
            (put or self._spool.put)(name, packed)
        return intake

    def intake(self, options: Options, accepted: Accepted, sources: Sequence[Part] = ()) -> Intake:
        """Returns what is to be recorded. Raises `InvalidBatch` for a budget that can never pay."""
        check_budgets(
            options,
            self._settings,
            least=accepted.least_cost,
            most=accepted.most_cost,
        )
        return Intake(accepted, sources)

    def writer(
        self,
        batch_id: str,
        options: Options,
        form: type[Writer],
        put: Callable[[str, bytes], object] | None = None,
    ) -> Writer:
        """Returns a new writer of this form for the requests of one batch."""
        settings = self._settings
        shaper = shaper_of(
            options.provider, model=options.model, kind=options.kind, unknown_fields=settings.unknown_fields
        )
        most = settings.max_job_bytes(options.mode, options.provider)
        has_budget = options.max_cost is not None or labels_under(settings.budgets, options.labels)
        return form(
            self._spool,
            batch_id,
            shaper,
            max_request_bytes=most,
            key_field=options.key_field,
            put=put,
            weigh=weighing(options.model, options.kind, settings) if has_budget else None,
        )

    def _given(
        self,
        batch_id: str,
        options: Options,
        requests: Iterable[RequestLike],
        put: Callable[[str, bytes], object],
    ) -> Accepted:
        """Writes requests, one by one or those of a file, to the spool, or those of a packed batch to `put`."""
        check_key_column(options)
        with self.writer(batch_id, options, RequestWriter, put) as writer:
            if isinstance(requests, (str, os.PathLike, io.RawIOBase, io.BufferedIOBase)):
                name = _name_of(requests)
                for position, item in json_lines(self._file_lines(requests, name)):
                    writer.add(item, position)
                return writer.finish(name)
            for item in requests:
                writer.add(item)
            return writer.finish()

    def _from_cloud(self, batch_id: str, options: Options, uris: Sequence[str]) -> Intake:
        """Reads requests in Google Cloud. They are copied to the spool unless the provider can read them in place."""
        from lowtide.cloud import Limits, open_source  # deferred: Google's clients, which few need here

        source = open_source(uris, self._settings, options)
        limits = None
        if options.provider is ProviderName.VERTEX:
            most_bytes = self._settings.max_job_bytes(options.mode, options.provider)
            limits = Limits(self._settings.max_requests_per_job, most_bytes)
        try:
            accepted, stays = source.take(partial(self.writer, batch_id, options), limits)
            if stays:
                KeyIndex.write(self._spool, batch_id)
        except InvalidRequest as error:
            error.source, error.position = source.place(error.position)
            raise
        return self.intake(options, accepted, source.parts if stays else ())

    def _file_lines(self, source: str | os.PathLike[str] | io.IOBase, name: str) -> Iterator[bytes]:
        """The lines of a file; `name` is for errors."""
        most = self._settings.max_bytes_per_job
        try:
            if isinstance(source, io.IOBase):
                yield from file_lines(cast("IO[bytes]", source), name, most=most)
            elif isinstance(source, str) and "://" in source:
                with self._spool.open(self._spool.name_of(source)) as file:
                    yield from file_lines(file, name, most=most)
            else:
                with Path(source).open("rb") as file:
                    yield from file_lines(cast("IO[bytes]", file), name, most=most)
        except OSError as error:
            raise InvalidBatch(f"{name}: {error.strerror}") from error


def cloud_uris(requests: object) -> Sequence[str] | None:
    """Returns the URIs in Google Cloud that `submit` was given as `requests`; None where it was given others.

    Raises `InvalidBatch` for a value that cannot be requests.
    """
    if not isinstance(requests, (Iterable, os.PathLike)):
        raise InvalidBatch(f"requests: expected an iterable or a path, got {type(requests).__name__}")
    uris = [requests] if isinstance(requests, str) else requests
    if not isinstance(uris, (list, tuple)) or not uris or not isinstance(uris[0], str):
        return None
    if not uris[0].startswith(("gs://", "bq://")) and not is_dataset(uris[0]):
        return None
    for uri in uris:
        if not isinstance(uri, str) or len(uri) > MAX_URI_CHARS:
            raise InvalidBatch(f"requests: the first is a URI of Google Cloud, {uri!r:.80} is not; give only such URIs")
    return uris


def _name_of(file: object) -> str:
    """The name of a file, for errors."""
    if not isinstance(file, io.IOBase):
        return str(file)
    name = getattr(file, "name", None)
    return {"<stdin>": "standard input"}.get(name, name) if isinstance(name, str) else "the file"
