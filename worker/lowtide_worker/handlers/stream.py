"""The stream handler: adds one entry a delivery or batch event to a Redis stream, by reference into the spool."""

from __future__ import annotations

import msgspec
import redis
from redis.typing import EncodableT, FieldT

from lowtide.addresses import StreamTarget
from lowtide.protocol import VERSION, keys
from lowtide.spool import Spool
from lowtide.tracing import Headers
from lowtide_worker.handlers.event_data import event_data
from lowtide_worker.handlers.protocol import BatchEvent, Delivery, HandlerFailed
from lowtide_worker.settings import WorkerSettings


class RedisStreamHandler:
    """Adds deliveries to a stream, which each reader reads from its own start and at its own pace.

    The stream keeps about `stream_max_length` entries. A reader that falls further behind misses references, but no
    results: these stay stored with their batch.
    """

    answers = False

    def __init__(self, settings: WorkerSettings, target: StreamTarget, spool: Spool, client: redis.Redis) -> None:
        self._key = keys.stream(target.name)
        self._max_length = settings.stream_max_length
        self._spool = spool
        self._redis = client

    def hand_over(self, delivery: Delivery) -> None:
        """Adds the entry. Raises `HandlerFailed` if Redis refuses to write to the stream."""
        only = delivery.only
        entry: dict[FieldT, EncodableT] = {
            "v": VERSION,
            "batch_id": delivery.batch_id,
            "labels": msgspec.json.encode(delivery.labels),
            "delivery_id": delivery.delivery_id,
            "results": delivery.results,
            "attempt": delivery.attempt,
            "only": "" if only is None else msgspec.json.encode(only),
            "count": sum(1 for _ in self._spool.lines(delivery.results)) if only is None else len(only),
        }
        self._add(entry, delivery.trace)

    def notify(self, event: BatchEvent) -> None:
        """Adds the entry of a batch event. Raises as `hand_over` does."""
        entry: dict[FieldT, EncodableT] = {
            "v": VERSION,
            "batch_id": event.status.id,
            "delivery_id": event.delivery_id,
            "event": event.type,
            "time": event.time,
            "attempt": event.attempt,
            "data": msgspec.json.encode(event_data(event)),
        }
        self._add(entry, event.trace)

    def _add(self, entry: dict[FieldT, EncodableT], trace: Headers) -> None:
        entry.update(trace)
        try:
            self._redis.xadd(self._key, entry, maxlen=self._max_length, approximate=True)
        except redis.ResponseError as error:
            raise HandlerFailed(f"{self._key}: {error}") from error
