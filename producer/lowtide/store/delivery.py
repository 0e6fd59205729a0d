"""The handler's side of a delivery: it reads the results, and then takes them or hands them back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import msgspec

from lowtide.errors import BatchNotFound, OutsideRoot
from lowtide.models import BatchStatus
from lowtide.protocol import (
    RECORD_VERSION,
    BatchFiles,
    EventName,
    Member,
    Stage,
    batch_status,
    delivered,
    keys,
    measures,
    written_fields,
)
from lowtide.protocol.changes import Redelivery
from lowtide.redaction import problem_text
from lowtide.settings import Settings
from lowtide.spool import Spool
from lowtide.store import scripts
from lowtide.store.batch_events import BatchEvents
from lowtide.store.batches import Store
from lowtide.store.connection import redis_errors
from lowtide.store.places import Places

_decode_labels = msgspec.json.Decoder(dict[str, str]).decode


class DeliveryClient:
    """Access to spool and Redis for a handler. Every method raises `StoreUnavailable` if Redis does not answer.

    A delivery is one segment of stored results on its way to a handler. `delivery_id` is its id, the same at each
    attempt; `attempt` counts from 1.
    """

    def __init__(self, settings: Settings) -> None:
        self._spool = Spool(settings.spool_url)
        self._store = Store(settings)
        self._installation = self._store.installation(self._spool)
        self._backoff = settings.delivery_backoff
        self._url = settings.redis_url.get_secret_value()
        self._hand_back = scripts.hand_back.load(self._store.redis)
        self._taken = scripts.taken.load(self._store.redis)
        self._started = scripts.started.load(self._store.redis)
        self._places = Places(self._store.redis)
        self._events = BatchEvents(self._store.redis, self._backoff)

    def lines(self, batch_id: str, results: str) -> Iterator[bytes]:
        """Yields the result lines of a delivery; `results` is the name of its file in the spool.

        Raises `OutsideRoot` for a file that is not the batch's own, `InstallationMismatch` if the spool is not that
        of the workers, and `SpoolError` if the file cannot be read.
        """
        if not results.startswith(f"{BatchFiles(batch_id).results}/"):
            raise OutsideRoot(f"{results!r} is not a results file of {batch_id}")
        with redis_errors(self._url):
            # Checked once in a process, so that a wrong spool is reported as such and not as missing files.
            _ = self._installation.id
        return self._spool.lines(results)

    def labels(self, batch_id: str) -> Mapping[str, str]:
        """Returns the labels of a batch; none where the batch is deleted, or its labels are damaged."""
        with redis_errors(self._url):
            found = self._store.redis.hget(keys.batch(batch_id), "labels")
        try:
            return _decode_labels(cast("bytes | None", found) or b"{}")
        except ValueError:
            return {}

    def started(self, delivery_id: str, attempt: int) -> int:
        """Counts a start of an attempt; returns how often this one has started, 0 if it is over.

        An attempt that starts more than once had a process that ended during it, or two copies of its message.
        """
        member = delivered(delivery_id)
        if member.event == EventName.PROGRESS:
            # Each is sent once, so there are no attempts to count.
            return 0
        with redis_errors(self._url):
            return int(self._started(segment=keys.entity(member), attempt=attempt))

    def taken(self, delivery_id: str) -> None:
        """Ends a delivery: its results, or the batch event, are handled."""
        member = delivered(delivery_id)
        if member.event:
            with redis_errors(self._url):
                self._end(member)
            return
        batch_id = member.batch
        with redis_errors(self._url), self._store.redis.pipeline() as pipe:
            self._taken.within(pipe)(
                batch=keys.batch(batch_id),
                segment=keys.entity(member),
                clock=keys.clock(Stage.DELIVER.queue),
                parked=keys.PARKED,
                census=keys.CENSUS,
                latencies=keys.LATENCIES,
                job=keys.job(member.job),
                member=member,
                latency=measures.DELIVERY,
                bounds=measures.DELIVERY_BOUNDS,
            )
            self._places.free(batch_id, member, client=pipe)
            pipe.execute()

    def hand_back(self, delivery_id: str, *, only: Sequence[int] | None, attempt: int, error: str) -> None:
        """Gives a delivery back to Lowtide, which makes its next attempt after a pause.

        - `only`: the numbers of the lines that failed, from 0; None for all.
        - `attempt`: the attempt that failed. The pause grows with it.
        - `error`: the reason, for people.
        """
        member = delivered(delivery_id)
        batch_id = member.batch
        if member.event:
            if member.event == EventName.FINISHED:
                with redis_errors(self._url):
                    self._events.hand_back(member, attempt, error)
            return
        job, _, number = delivery_id.rpartition(":")
        fields: Redelivery = {
            "v": RECORD_VERSION,
            "batch_id": batch_id,
            "job_id": job,
            "number": int(number),
            "stage": Stage.DELIVER,
            "busy": False,
            "stored": True,
            "tries": attempt,
            "problem": problem_text(error),
            "only": only,
        }
        pause = self._backoff.seconds(attempt - 1)
        with redis_errors(self._url), self._store.redis.pipeline() as pipe:
            self._hand_back.within(pipe)(
                batch=keys.batch(batch_id),
                segment=keys.entity(member),
                clock=keys.clock(Stage.DELIVER.queue),
                parked=keys.PARKED,
                census=keys.CENSUS,
                job=keys.job(job),
                member=member,
                number=int(number),
                pause=pause,
                attempt=attempt,
                fields=written_fields(fields),
            )
            self._places.free(batch_id, member, client=pipe)
            pipe.execute()

    def status(self, delivery_id: str) -> BatchStatus | None:
        """Returns the status of the batch that a batch event is about: at its end, or of its progress now.

        None where the batch event has ended, or the batch is deleted.
        """
        member = delivered(delivery_id)
        if member.event == EventName.PROGRESS:
            try:
                return self._store.status(member.batch)
            except BatchNotFound:
                return None
        with redis_errors(self._url):
            record = self._events.record(member)
        return None if record is None else batch_status(record, [], [])

    def _end(self, member: Member) -> None:
        # One of progress stays on the clock until its batch ends.
        if member.event == EventName.FINISHED:
            self._events.taken(member)
