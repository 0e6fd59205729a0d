"""The ids of deleted batches, which are kept for as long as a late file of such a batch may appear."""

from __future__ import annotations

import redis

from lowtide.protocol import keys
from lowtide.store import redis_time

_KEPT_SECONDS = 30 * 86_400.0


class DeletedBatches:
    """A sorted set of ids by the time of their deletion."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def note(self, batch_id: str) -> None:
        """Notes that a batch is deleted."""
        now = redis_time(self._redis)
        with self._redis.pipeline() as pipe:
            pipe.zadd(keys.DELETED, {batch_id: now})
            pipe.zremrangebyscore(keys.DELETED, "-inf", now - _KEPT_SECONDS)
            pipe.execute()

    def has(self, batch_id: str) -> bool:
        """Whether a batch of this id was deleted."""
        return self._redis.zscore(keys.DELETED, batch_id) is not None
