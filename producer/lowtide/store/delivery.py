"""The handler's side of a delivery: read the results it refers to, then take them or hand them back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from lowtide.errors import OutsideRoot
from lowtide.protocol import VERSION, BatchFiles, Stage, keys, segment_of
from lowtide.settings import Settings
from lowtide.spool import Spool
from lowtide.store import scripts
from lowtide.store.batches import Store
from lowtide.store.connection import redis_errors
from lowtide.store.places import Places
from lowtide.store.scripting import pairs


class Delivery:
    """Spool and store, as a handler needs them."""

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

    def lines(self, batch_id: str, results: str) -> Iterator[bytes]:
        """The result lines of a segment. Raises `OutsideRoot` for a name that is not the batch's own.

        Raises `InstallationMismatch` where the spool is not that of the workers.
        """
        if not results.startswith(f"{BatchFiles(batch_id).results}/"):
            raise OutsideRoot(f"{results!r} is not a results file of {batch_id}")
        with redis_errors(self._url):
            # Once in a process; who is in the wrong place finds out before it calls anything missing.
            _ = self._installation.id
        return self._spool.lines(results)

    def started(self, delivery_id: str, attempt: int) -> int:
        """Counts that an attempt at a delivery begins; returns how often it has, 0 where nobody waits for it.

        It begins again where its process ended in the midst of it.
        """
        _, member = segment_of(delivery_id)
        with redis_errors(self._url):
            return int(self._started(segment=keys.entity(member), attempt=attempt))

    def taken(self, delivery_id: str) -> None:
        """Says that a delivery is handled, and need not come again."""
        batch_id, member = segment_of(delivery_id)
        with redis_errors(self._url), self._store.redis.pipeline() as pipe:
            self._taken.within(pipe)(
                batch=keys.batch(batch_id),
                segment=keys.entity(member),
                clock=keys.clock(Stage.DELIVER.queue),
                parked=keys.PARKED,
                member=member,
            )
            self._places.free(batch_id, member, client=pipe)
            pipe.execute()

    def hand_back(self, delivery_id: str, *, only: Sequence[int] | None, attempt: int, error: str) -> None:
        """Gives a delivery back to Lowtide, to come again after a while.

        `only` are the line numbers (0-based) that failed, None for all; `attempt` the one that failed.
        """
        batch_id, member = segment_of(delivery_id)
        job, _, number = delivery_id.rpartition(":")
        fields = {
            "v": VERSION, "batch_id": batch_id, "job_id": job, "number": number, "stage": Stage.DELIVER,
            "busy": 0, "stored": 1, "tries": attempt, "problem": error[:1000],
            "only": "" if only is None else msgspec.json.encode(only),
        }  # fmt: skip
        with redis_errors(self._url), self._store.redis.pipeline() as pipe:
            self._hand_back.within(pipe)(
                batch=keys.batch(batch_id),
                segment=keys.entity(member),
                clock=keys.clock(Stage.DELIVER.queue),
                parked=keys.PARKED,
                member=member,
                pause=self._backoff.seconds(attempt - 1),
                attempt=attempt,
                fields=pairs(fields.items()),
            )
            self._places.free(batch_id, member, client=pipe)
            pipe.execute()
