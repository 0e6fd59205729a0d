"""`BatchQueue`: the entrance of a service that submits batches."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from typing import Any, BinaryIO, Unpack, cast

from lowtide import tracing
from lowtide.absences import Absences
from lowtide.addresses import doubt_about
from lowtide.announcing import announce, prepare_to_announce
from lowtide.batch import Batch
from lowtide.errors import (
    BatchNotFound,
    IdempotencyConflict,
    InvalidBatch,
    LowtideError,
    SourceError,
    SpoolError,
    placed,
)
from lowtide.estimates import Estimate, estimate
from lowtide.intake import BatchSubmission, Intake, Receiver, RequestLike, RequestsLike, cloud_uris
from lowtide.interruptions import not_recorded
from lowtide.models import BatchPage
from lowtide.options import BatchOptions, Options
from lowtide.protocol import BATCH_ID, BatchFiles, Stage, new_batch_id
from lowtide.settings import Settings
from lowtide.singles import SingleQueue
from lowtide.spending import PriceWarnings, check_price
from lowtide.spool import ParallelPuts, Spool
from lowtide.states import BatchState
from lowtide.store import Installation, Recorded, Store, Unrecorded
from lowtide.variables import warn_of_unknown_variables

log = logging.getLogger(__name__)

_AT_ONCE = 500
"""Most batches in one call of Redis."""
_ASKED_SECONDS = 1.0
"""For so long a producer takes it for granted that Redis answers."""
_PAGE_TOKEN = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?(e\+?[0-9]{1,3})?:[a-z0-9-]{1,50}", re.ASCII)
"""A time and the id of a batch, as `Store.page` joins them."""


class BatchQueue(SingleQueue):
    """Submits batches and finds them again.

    It is cheap to make, connects to Redis when it first needs to, and is safe to share between threads.

    - `settings`: None reads them from `LOWTIDE_*` variables and `.env`.

    Example::

        question = Request(key="tides", contents="Why are there two tides a day?")
        batch = BatchQueue().submit([question], model="gemini-3.5-flash")
        batch.wait(timeout=3600)
        for result in batch.results():
            print(result.key, result.text)
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        warn_of_unknown_variables(partial(log.warning, "%s"))
        self._store = Store(self.settings)
        self._spool = Spool(self.settings.spool_url)
        self.receiver = Receiver(self.settings, self._spool)
        super().__init__()
        self._absences = Absences(self._store)
        self._prices = PriceWarnings(self.settings)
        self._confirmed = -_ASKED_SECONDS
        """When Redis was last found to answer, and to be this installation's."""

    @cached_property
    def _installation(self) -> Installation:
        return self._store.installation(self._spool)

    def submit(
        self,
        requests: Iterable[RequestLike] | Sequence[str] | str | os.PathLike[str] | BinaryIO,
        *,
        model: str,
        **options: Unpack[BatchOptions],
    ) -> Batch:
        """Submits a batch; returns as soon as it is recorded, before anything is sent to the provider.

        Parameters:

        - `requests`: one of
            - an iterable of `Request`, or of mappings in the SDK's inline shape or the REST line shape; it is read
              once, and never held in memory as a whole,
            - the path of a JSONL file, its URI under the spool, or a file that is open for reading bytes
              (`sys.stdin.buffer`); it may be compressed by gzip or zstd,
            - `gs://` URIs of JSONL objects (one, a list, or a prefix); on Vertex AI also the `bq://` URI of a table
              with a column `request` and a `key_column`, or the name of a multimodal dataset of such a table
              (`projects/.../locations/.../datasets/...`). If they fit one job unchanged, the provider reads them in
              place.
        - `model`: the model that answers all requests, as in `gemini-3.5-flash`: at most 256 characters.

        Options, each by keyword and each optional:

        - `on_result`: the handler that gets the results: a Celery task (`shop.save_blurb`, or what `result_handler`
          returned), an `https://` URL, or `stream://NAME`. Default None: results are only stored. If no worker listens
          for a Celery task, a warning is logged and the results wait.
        - `on_finished`: the handler that is notified once that the batch has ended, with its status: a Celery task (as
          `batch_handler` makes one), a webhook or a stream. Default None: `LOWTIDE_ON_FINISHED`.
        - `on_progress`: the handler that is notified of its progress, about once a minute. Default None: none.
        - `idempotency_key`: at most 1,024 characters. To submit the same content under the same key again returns the
          same batch. Default None: each call submits a new batch.
        - `labels`: names and values that come back in the status: at most 64, names of 128 characters, values of 1,024.
          Default None: no labels.
        - `mode`: how requests travel to the provider: `file` (up to 2 GB a job) or `inline` (under 20 MB a job, only
          generation on the Gemini Developer API). Default None: `LOWTIDE_MODE`.
        - `max_attempts`: most provider jobs that may carry one request, 1 to 100. Default None:
          `LOWTIDE_MAX_ATTEMPTS`.
        - `max_cost`: most that the batch may cost, in US dollars, as in `"12.50"`. A job is sent only where what was
          paid, and the estimated cost of the jobs under way, leave enough. Default None: no limit.
        - `over_budget`: what happens to requests for which `max_cost` leaves too little: they `fail` with the reason
          `BUDGET`, or `wait` for a higher one until the deadline. Default `fail`.
        - `priority`: -100 to 100. While more jobs wait than the provider takes at once, jobs of a higher priority go
          first. Default 0.
        - `deadline`: when the batch gets no more jobs: requests that are in none then expire. Seconds after the submit,
          or a datetime with a time zone (or the same in ISO 8601), at most 366 days ahead. Default None:
          `LOWTIDE_BATCH_DEADLINE_SECONDS` of the workers.
        - `outcomes`: how to treat rows that fail with a reason or code, as in `{"MAX_TOKENS": "retry"}`: `retry`,
          `fail` or `succeed` (see `Verdict`). At most 256. Default None: as `LOWTIDE_OUTCOMES` and the row table say.
        - `provider`: the provider that runs the batch: `gemini` or `vertex`. Default None: `LOWTIDE_PROVIDER`.
        - `kind`: what is asked of the model: `generation` or `embedding`. Default `generation`.
        - `destination`: on Vertex AI, an empty `gs://` or `bq://` place where the provider writes its output, which
          stays there. Default None: a place that Lowtide cleans up.
        - `key_column`: the column of a `bq://` table that holds the keys. Default `key`.
        - `share`: whether its requests may share provider jobs with those of other small batches. Default None:
          `LOWTIDE_SHARE_JOBS`.
        - `key_field`: the field that holds the keys, for all other requests but `Request`: a name (`id`), a dotted path
          (`meta.id`), or `#` for the number of the line, from 1. The field need not be one of a request, and is not
          sent. Default None: `key`, or `custom_id` of an OpenAI line.

        Raises:

        - `InvalidRequest`: a request cannot be sent. The error has its position, key and field.
        - `InvalidBatch`: an option cannot be used, or there are no requests.
        - `TypeError`: there is no option of this name.
        - `SourceError`: a place in Google Cloud cannot be used.
        - `IdempotencyConflict`: the idempotency key belongs to a batch with other content.
        - `SpoolError`, `StoreUnavailable`: the spool or Redis does not work.
        - `UnsupportedServer`: Redis is too old.
        - `InstallationMismatch`: Redis and spool do not belong together.

        An exception, a signal or the end of the process may interrupt it anywhere: either nothing is recorded and
        nothing will be sent, or the batch is recorded and runs. After `StoreUnavailable` or an interruption it can be
        either: submit again with the same `idempotency_key`, and there is one batch in any case.

        Example::

            requests = (Request(key=sku, contents=f"Describe {name}.") for sku, name in products)
            batch = BatchQueue().submit(
                requests, model="gemini-3.5-flash", on_result="shop.save_blurb", idempotency_key="blurbs-2026-11",
                labels={"team": "shop"}, max_attempts=5,
            )

        Source: https://ai.google.dev/gemini-api/docs/batch-api
        """
        checked = Options.checked(self.settings, model=model, **options)
        about = tracing.of_model(checked.model, checked.provider, checked.kind)
        with tracing.span("submit", Stage.SUBMIT.queue, "PRODUCER", about):
            with not_recorded():
                cloud_uris(requests)
                self.check(checked)
                prepare_to_announce(self.settings.redis_url)
                batch_id = new_batch_id()
                with self._removed_on_error([batch_id]):
                    intake = self.receiver.take(batch_id, checked, requests)
            # From here on only Redis knows whether the batch is recorded, so its files stay.
            [batch] = self._record([_unrecorded(batch_id, checked, intake, tracing.current())])
            tracing.describe(tracing.of_batch(batch.id, intake.accepted.total))
        return batch

    def submit_many(self, batches: Iterable[BatchSubmission]) -> list[Batch]:
        """Submits many small batches in one call; returns them in the order in which they were given.

        It is to `submit` as one journey is to many: the batches wait for the disk together, and reach Redis in a few
        calls. Each is a batch of its own, with its own options, id, idempotency key and results.

        - `batches`: the arguments of `submit` for each batch, by their names, as in
          `{"requests": requests, "model": "gemini-3.5-flash", "idempotency_key": "order-17"}`. They are read once, in
          order; of each batch that is not large, up to 1 MiB is held in memory until it is written.

        Every batch is checked and written before the first is recorded. An error before that leaves nothing: it is one
        of `submit`, and its `batch` is the place (0-based) of the batch that caused it.

        Then the batches are recorded, 500 at once. One whose idempotency key belongs to other content, or whose
        destination to another batch, stops no other: `IdempotencyConflict` or `SourceError`, of the first of them, is
        raised when all others are recorded. After `StoreUnavailable` any of them may be recorded. In both cases submit
        again, with the same idempotency keys: each batch exists once.

        Example::

            batches = BatchQueue().submit_many(
                {"requests": questions(order), "model": "gemini-3.5-flash", "idempotency_key": f"order-{order.id}"}
                for order in orders
            )
        """
        self._store.confirm(self._installation)
        prepare_to_announce(self.settings.redis_url)
        new: list[Unrecorded] = []
        ids: list[str] = []
        with self._removed_on_error(ids), ParallelPuts(self._spool.put) as puts:
            for place, given in enumerate(batches):
                with placed(place):
                    requests, checked = self._checked(given)
                    batch_id = new_batch_id()
                    ids.append(batch_id)
                    about = tracing.of_model(checked.model, checked.provider, checked.kind)
                    with tracing.span("submit", Stage.SUBMIT.queue, "PRODUCER", about):
                        intake = self.receiver.take(batch_id, checked, requests, put=puts.put)
                        tracing.describe(tracing.of_batch(batch_id, intake.accepted.total))
                        new.append(_unrecorded(batch_id, checked, intake, tracing.current()))
            # It may have taken long to read them all.
            self._store.confirm(self._installation)
        # From here on only Redis knows which batches are recorded, so their files stay.
        return self._record(new)

    def estimate(self, requests: RequestsLike, *, model: str, **options: Unpack[BatchOptions]) -> Estimate:
        """Returns what a batch would be and would cost; nothing is stored or sent. See `lowtide.estimates`.

        Without Redis it works too, but cannot correct the tokens by what the answers of this model have shown so far.
        """
        provider = options.get("provider") or self.settings.provider
        quota = self._store.money.quota(f"{provider}", model) if isinstance(model, str) else None
        found = estimate(requests, model=model, settings=self.settings, quota=quota, **options)
        self._prices.check(model)
        return found

    def _checked(self, given: BatchSubmission) -> tuple[RequestsLike, Options]:
        """The requests and the options of one batch of many. Raises as `submit` does."""
        if not isinstance(given, Mapping) or not {"requests", "model"} <= given.keys():
            raise InvalidBatch("expected the arguments of submit by their names, requests and model among them")
        options = {name: value for name, value in given.items() if name != "requests"}
        checked = Options.checked(self.settings, **cast("Any", options))
        cloud_uris(given["requests"])
        self._check(checked)
        return given["requests"], checked

    @contextmanager
    def _removed_on_error(self, batch_ids: Sequence[str]) -> Iterator[None]:
        """Removes the files of batches that are not recorded, if any exception or signal ends the block."""
        try:
            yield
        except BaseException:
            for batch_id in batch_ids:
                self._remove_files(batch_id)
            raise

    def _remove_files(self, batch_id: str) -> None:
        try:
            self._spool.delete_folder(BatchFiles(batch_id).folder)
        except SpoolError as error:
            log.warning("batch %s is not recorded, and the sweep will remove its files: %s", batch_id, error)

    def check(self, options: Options) -> None:
        """Checks all that `submit` needs before anything is written.

        Raises `StoreUnavailable` where Redis does not answer, `InstallationMismatch` where Redis and spool belong to
        different installations, and `SourceError` for a destination that cannot be used. Logs a warning where no worker
        listens for the handler, no worker can serve the provider, the workers may not call a webhook, no price is known
        for the model, or it is likely for another kind of batch. Of many batches within a second, it asks for one only:
        the script that records a batch checks the installation once more.
        """
        now = time.monotonic()
        if now - self._confirmed >= _ASKED_SECONDS:
            self._store.confirm(self._installation)
            self._confirmed = now
        self._check(options)

    def _check(self, options: Options) -> None:
        check_price(options, self.settings)
        self._prices.check(options.model)
        self._absences.warn(options)
        if doubt := doubt_about(options.model, options.kind):
            log.warning("%s", doubt)
        if options.destination is None:
            return
        if options.idempotency_key is None or not self._store.standing(options.idempotency_key):
            from lowtide.cloud import check_destination  # deferred: Google's clients, which few need here

            check_destination(options.destination, self.settings)

    def register(self, batch_id: str, options: Options, intake: Intake, trace: tracing.Headers) -> Batch:
        """Records a batch whose requests are in the spool; returns the batch that its idempotency key belongs to.

        `trace` is the span that its work continues. It removes the files only where Redis answers that the key or the
        destination belongs to another batch: after a lost reply, the batch may be recorded. Raises
        `IdempotencyConflict`, `SourceError` and `StoreUnavailable`.
        """
        return self._record([_unrecorded(batch_id, options, intake, trace)])[0]

    def _record(self, new: Sequence[Unrecorded]) -> list[Batch]:
        """Records batches, and sends the messages of what is due. Raises the first error when all are recorded."""
        found: list[Batch] = []
        refused: list[LowtideError] = []
        for place, (one, recorded) in enumerate(zip(new, self._registered(new), strict=True)):
            try:
                found.append(Batch(self._standing(one, recorded), self._store, self._spool))
            except LowtideError as error:
                error.batch = place if len(new) > 1 else None
                refused.append(error)
        if refused:
            raise refused[0]
        return found

    def _registered(self, new: Sequence[Unrecorded]) -> Iterator[Recorded | SourceError]:
        for first in range(0, len(new), _AT_ONCE):
            some = self._store.register(new[first : first + _AT_ONCE], self._installation)
            for due in dict.fromkeys(one.due for one in some if isinstance(one, Recorded) and one.due):
                announce(self.settings.redis_url, due)
            yield from some

    def _standing(self, new: Unrecorded, recorded: Recorded | SourceError) -> str:
        """The id of the batch that stands for a new one. Raises `IdempotencyConflict` and `SourceError`."""
        if not new.requests and (isinstance(recorded, SourceError) or recorded.batch_id != new.batch_id):
            # Redis has answered that another batch has the key or the destination.
            self._remove_files(new.batch_id)
        if isinstance(recorded, SourceError):
            raise recorded
        if recorded.fingerprint != new.fingerprint:
            raise IdempotencyConflict(
                f"idempotency key {new.options.idempotency_key!r} belongs to batch {recorded.batch_id}, which has "
                "other content; use a new key for new content"
            )
        return recorded.batch_id

    def get(self, batch_id: str) -> Batch:
        """Returns the batch of this id, as `Batch.id` gave it. Raises `BatchNotFound`."""
        if not isinstance(batch_id, str) or not BATCH_ID.fullmatch(batch_id):
            raise BatchNotFound(f"{batch_id!r:.60} is not a batch id; give the id that submit returned")
        try:
            self._store.summary(batch_id)
        except BatchNotFound:
            self._check_not_emptied()
            raise
        return Batch(batch_id, self._store, self._spool)

    def list(
        self,
        *,
        state: BatchState | str | None = None,
        labels: Mapping[str, str] | None = None,
        bundle: str | None = None,
        page_size: int = 50,
        page_token: str | None = None,
    ) -> BatchPage:
        """Returns one page of batches, newest first, without their jobs.

        - `state`: only batches in this state; None: all.
        - `labels`: only batches that have all these labels, as in `{"team": "shop"}`; None: all.
        - `bundle`: only batches that share the jobs of this bundle, as `BatchStatus.bundle` names it; None: all.
        - `page_size`: most batches on the page.
        - `page_token`: `next_page_token` of the page before; None: the first page.

        With `state` or `labels` a call reads about 1,000 batches at most: the page may have fewer batches than
        `page_size`, or none, and a `next_page_token` all the same. Raises `ValueError` for a state that does not exist,
        for a token that is none, and for an id that no bundle can have.
        """
        if bundle is not None and (not isinstance(bundle, str) or not BATCH_ID.fullmatch(bundle)):
            raise ValueError("bundle: give the id of a bundle, as the status of its batches has it")
        if page_token is not None and not _PAGE_TOKEN.fullmatch(page_token):
            raise ValueError("page_token: give the next_page_token of another page, as it is")
        wanted = BatchState(state) if state is not None else None
        page = self._store.page(state=wanted, labels=labels, bundle=bundle, page_size=page_size, page_token=page_token)
        if not page.batches:
            self._check_not_emptied()
        return page

    def _check_not_emptied(self) -> None:
        """Raises `InstallationMismatch` where Redis has no batches because it was emptied or replaced."""
        with suppress(SpoolError):
            self._installation.check_redis()


def _unrecorded(batch_id: str, options: Options, intake: Intake, trace: tracing.Headers) -> Unrecorded:
    fingerprint = intake.fingerprint(options)
    return Unrecorded(batch_id, options, intake.accepted, fingerprint, trace, intake.sources, intake.requests)
