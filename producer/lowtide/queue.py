"""The producer's entrance: `BatchQueue`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, cast

from lowtide.addresses import NamedTask
from lowtide.batch import Batch
from lowtide.errors import BatchNotFound, IdempotencyConflict, InvalidBatch, InvalidRequest, SpoolError
from lowtide.limits import MAX_URI_CHARS
from lowtide.models import BatchPage, Request
from lowtide.options import Options
from lowtide.protocol import BATCH_ID, BatchFiles, Stage, arguments, batch_member, new_batch_id, sender, shown
from lowtide.settings import Settings
from lowtide.shaping import json_lines, shaper_of
from lowtide.spool import Accepted, KeyIndex, RequestWriter, Spool, Writer
from lowtide.states import BatchState, Kind, Mode, ProviderName, Verdict
from lowtide.store import Installation, Store

log = logging.getLogger(__name__)

RequestLike = Request | Mapping[str, object]
"""A `Request`, or a mapping in the SDK's inline shape or the REST line shape."""


class Intake(NamedTuple):
    """A batch whose requests are in the spool, and which is not recorded yet."""

    accepted: Accepted
    sources: Sequence[tuple[str, int]] = ()
    """Places where the provider finds the requests, if it is to use them in place, with their sizes in bytes."""


class BatchQueue:
    """Submits batches and finds them again.

    Cheap to make: it connects to Redis when first needed. `settings` come from `LOWTIDE_*` variables and
    `.env` where none are given. Safe to share between threads.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._store = Store(self.settings)
        self._spool = Spool(self.settings.spool_url)

    @cached_property
    def _installation(self) -> Installation:
        return self._store.installation(self._spool)

    def submit(
        self,
        requests: Iterable[RequestLike] | Sequence[str] | str | os.PathLike[str],
        *,
        model: str,
        on_result: str | NamedTask | None = None,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
        mode: Mode | str | None = None,
        max_attempts: int | None = None,
        priority: int = 0,
        outcomes: Mapping[str, Verdict | str] | None = None,
        provider: ProviderName | str | None = None,
        kind: Kind | str = Kind.GENERATION,
        destination: str | None = None,
        key_column: str = "key",
    ) -> Batch:
        """Takes a batch in; returns as soon as it is recorded.

        `requests` is any iterable, read once and never held whole, or the path or spool URI of a JSONL
        file. With an `idempotency_key`, submitting the same content again returns the same batch.

        `outcomes` changes what rows of a reason come to, as in `{"MAX_TOKENS": "retry"}` (see `Verdict`).
        `on_result` names the handler that is given the results, or is the task that `result_handler` made of it;
        where nobody listens for it, a warning is logged, and the results wait until somebody does.
        While more jobs wait than the provider takes at once, those of a higher `priority` (-100 to 100) go first.

        `provider` is whose batch API runs it, `kind` what is asked of the model: `generation` or `embedding`.
        On Vertex AI, `requests` may also be `gs://` URIs of JSONL objects, one, several or a prefix, or the
        `bq://` URI of a table with a column `request` and a `key_column`; they are used in place where they fit
        one job as they are. `destination` (`gs://` or `bq://`, empty) is where the provider then writes, and what
        it wrote stays there.

        Raises `InvalidRequest` or `InvalidBatch` for what cannot be sent, `SourceError` for a place in Google
        Cloud that cannot be used, `IdempotencyConflict` where the key belongs to other content, `SpoolError` or
        `StoreUnavailable` where a store does not serve, `UnsupportedServer` where Redis is too old,
        `InstallationMismatch` where the two do not belong together.

        It may be interrupted anywhere, by an exception, a signal or the end of its process: either nothing is
        recorded, and nothing will be sent, or the batch is, and runs. After `StoreUnavailable`, or an interruption, it
        may be either: submit again with the same `idempotency_key`, and it is one batch in any case.

        Source: https://ai.google.dev/gemini-api/docs/batch-api
        """
        options = Options.checked(
            self.settings, model=model, on_result=on_result, idempotency_key=idempotency_key, labels=labels,
            mode=mode, max_attempts=max_attempts, priority=priority, outcomes=outcomes, provider=provider,
            kind=kind, destination=destination, key_column=key_column,
        )  # fmt: skip
        uris = cloud_uris(requests)
        self.check(options)
        self._prepare_to_announce()
        batch_id = new_batch_id()
        with self._gone_unless_whole(batch_id):
            if uris is not None:
                intake = self._take_source(batch_id, options, uris)
            else:
                intake = self._take_requests(batch_id, options, cast("Iterable[RequestLike] | str", requests))
        # From here on nobody but Redis knows whether the batch is recorded, so its files stay.
        batch = self.register(batch_id, options, intake)
        self._announce(batch.id)
        return batch

    @contextmanager
    def _gone_unless_whole(self, batch_id: str) -> Iterator[None]:
        """Removes what was written of a batch that nobody else knows of, whatever it is that ends the block."""
        try:
            yield
        except BaseException:
            self._remove_files(batch_id)
            raise

    def _remove_files(self, batch_id: str) -> None:
        try:
            self._spool.delete(BatchFiles(batch_id).folder)
        except SpoolError as error:
            log.warning("files of batch %s, which is not recorded, are left to the sweep: %s", batch_id, error)

    def _take_requests(self, batch_id: str, options: Options, requests: Iterable[RequestLike] | str) -> Intake:
        """Takes in requests one by one, or those of a file."""
        with self.writer(batch_id, options, RequestWriter) as writer:
            if isinstance(requests, (str, os.PathLike)):
                for position, item in json_lines(self._file_lines(requests)):
                    writer.add(item, position)
            else:
                for item in requests:
                    writer.add(item)
            return Intake(writer.finish())

    def _take_source(self, batch_id: str, options: Options, uris: Sequence[str]) -> Intake:
        """Takes in requests that lie in Google Cloud; the provider uses them there if it can."""
        from lowtide.cloud import Limits, open_source  # deferred: Google's clients, which few need here

        source = open_source(uris, self.settings, options)
        limits = Limits(
            self.settings.max_requests_per_job, self.settings.max_job_bytes(options.mode, options.provider)
        ) if options.provider is ProviderName.VERTEX else None  # fmt: skip
        try:
            accepted, stays = source.take(partial(self.writer, batch_id, options), limits)
            if stays:
                KeyIndex.write(self._spool, BatchFiles(batch_id))
        except InvalidRequest as error:
            error.source, error.position = source.place(error.position)
            raise
        return Intake(accepted, source.parts if stays else ())

    def check(self, options: Options) -> None:
        """Raises where something is not as it must be, before anything is written.

        That is a store that does not answer, a store and a spool of two installations (`InstallationMismatch`), or a
        destination that cannot be used.
        """
        self._store.confirm(self._installation)
        if silence := self._store.silence(options.on_result):
            log.warning("%s; until then the results wait", silence)
        if options.destination is None:
            return
        if options.idempotency_key is None or not self._store.standing(options.idempotency_key):
            from lowtide.cloud import check_destination  # deferred: Google's clients, which few need here

            check_destination(options.destination, self.settings)

    def writer(self, batch_id: str, options: Options, form: type[Writer]) -> Writer:
        """Returns a new writer of this form for the requests of one batch."""
        shaper = shaper_of(options.provider, model=options.model, kind=options.kind)
        most = self.settings.max_job_bytes(options.mode, options.provider)
        return form(self._spool, batch_id, shaper, max_request_bytes=most)

    def register(self, batch_id: str, options: Options, intake: Intake) -> Batch:
        """Records a batch whose requests are in the spool; returns the one that stands for its idempotency key.

        The files are removed where Redis has answered that another batch stands, and in no other case: after a lost
        reply the batch may be recorded. Raises `IdempotencyConflict` and `StoreUnavailable`.
        """
        accepted = intake.accepted
        fingerprint = "-".join(
            (accepted.fingerprint, options.model, options.mode, options.on_result or "", options.provider,
             options.kind, options.destination or ""),
        )  # fmt: skip
        standing, standing_fingerprint = self._store.register(
            batch_id, options, total=accepted.total, size=accepted.bytes, groups=accepted.groups,
            fingerprint=fingerprint, sources=intake.sources,
        )  # fmt: skip
        if standing != batch_id:
            self._remove_files(batch_id)
        if standing_fingerprint != fingerprint:
            raise IdempotencyConflict(
                f"idempotency key {options.idempotency_key!r} belongs to batch {standing}, which has other "
                "content; use a new key for new content"
            )
        return Batch(standing, self._store, self._spool)

    def _prepare_to_announce(self) -> None:
        """Imports all that announcing needs, while a failure of it can still not matter."""
        try:
            sender(self.settings.redis_url.get_secret_value())
        except Exception as error:  # noqa: BLE001 - as of `_announce`
            log.warning("no message can be sent from here, the workers' clock will do it: %s", _named(error))

    def _announce(self, batch_id: str) -> None:
        """Sends the submit message. Only a shortcut: the clock sends it too, a few seconds later."""
        member = batch_member(batch_id)
        try:
            sender(self.settings.redis_url.get_secret_value()).send_task(
                Stage.SUBMIT, kwargs=arguments(member, 0), kwargsrepr=shown(member),
                queue=Stage.SUBMIT.queue, retry=False,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - the batch is recorded and will run, whatever this was
            log.warning("batch %s is recorded; the clock will send its message: %s", batch_id, _named(error))

    def _file_lines(self, source: str | os.PathLike[str]) -> Iterator[bytes]:
        if isinstance(source, str) and "://" in source:
            yield from self._spool.lines(self._spool.name_of(source))
            return
        try:
            with Path(source).open("rb") as file:
                yield from file
        except OSError as error:
            raise InvalidBatch(f"{source}: {error.strerror}") from error

    def get(self, batch_id: str) -> Batch:
        """The batch of this id. Raises `BatchNotFound`."""
        if not BATCH_ID.fullmatch(batch_id):
            raise BatchNotFound(f"{batch_id!r} is not a batch id")
        try:
            self._store.summary(batch_id)
        except BatchNotFound:
            self._look_whether_emptied()
            raise
        return Batch(batch_id, self._store, self._spool)

    def list(
        self, *, state: BatchState | str | None = None, page_size: int = 50, page_token: str | None = None
    ) -> BatchPage:
        """One page of batches, newest first, without their jobs."""
        wanted = BatchState(state) if state is not None else None
        page = self._store.page(state=wanted, page_size=page_size, page_token=page_token)
        if not page.batches:
            self._look_whether_emptied()
        return page

    def _look_whether_emptied(self) -> None:
        """Raises `InstallationMismatch` where Redis knows of no batch because it is not the one that did."""
        with suppress(SpoolError):
            self._installation.look()


def cloud_uris(requests: object) -> Sequence[str] | None:
    """The URIs in Google Cloud that `submit` was given instead of requests; None where it was not.

    Raises `InvalidBatch` for what cannot hold requests at all.
    """
    if not isinstance(requests, (Iterable, os.PathLike)):
        raise InvalidBatch(f"requests: expected an iterable or a path, got {type(requests).__name__}")
    uris = [requests] if isinstance(requests, str) else requests
    if not isinstance(uris, (list, tuple)) or not uris or not isinstance(uris[0], str):
        return None
    if not uris[0].startswith(("gs://", "bq://")):
        return None
    for uri in uris:
        if not isinstance(uri, str) or len(uri) > MAX_URI_CHARS:
            raise InvalidBatch(f"requests: {uri!r:.80} is not a URI, as the first of them is")
    return uris


def _named(error: Exception) -> str:
    # Of anything: its text may hold the broker's URL with the password.
    return type(error).__name__
