"""The sources of the pages: the public objects of a producer, and the snapshot of the metrics."""

from __future__ import annotations

from lowtide import BatchQueue, DeadLetters
from lowtide.store import connect, redis_errors
from lowtide_worker.metrics import Snapshot, catalogue, read_snapshot
from lowtide_worker.settings import WorkerSettings

_MOST_SECONDS = 2.0
"""Longest wait for one reply of Redis, in seconds, so that a Redis that hangs does not hold all of Flower's threads."""


class Reader:
    """Reads the store for all pages. It is safe to share between threads."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings.model_copy(
            update={"redis_timeout_seconds": min(_MOST_SECONDS, settings.redis_timeout_seconds)}
        )
        self.queue = BatchQueue(self.settings)
        self.letters = DeadLetters(self.settings)
        self._redis = connect(self.settings)

    def snapshot(self) -> Snapshot:
        """Returns all metrics. Raises `StoreUnavailable` where Redis does not serve."""
        with redis_errors(self.settings.redis_url.get_secret_value()):
            return read_snapshot(self._redis, self.settings)


def dead_letter_count(snapshot: Snapshot) -> int:
    """Returns the number of parked segments and batch events, and of messages that no worker could handle."""
    parked = sum(snapshot.values[kind].get(("parked",), 0) for kind in (catalogue.SEGMENTS, catalogue.BATCH_EVENTS))
    return int(parked + snapshot.values[catalogue.DEAD_LETTER_MESSAGES].get((), 0))
