"""Records new batches, each once, in the Redis of one installation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import redis

from lowtide.errors import SourceError, StoreUnavailable
from lowtide.settings import Settings
from lowtide.store import scripts
from lowtide.store.connection import redis_errors
from lowtide.store.durability import all_durably, durably
from lowtide.store.installation import Installation
from lowtide.store.recording import Recorded, Unrecorded, registration, standing_of
from lowtide.store.scripting import Script

_TRIES = 3
"""How often Redis is asked to record a batch whose reply does not come."""


class Recorder:
    """Records batches by register.lua."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis = client
        self._settings = settings
        self._url = settings.redis_url.get_secret_value()
        self._register = scripts.register.load(client)

    def record(self, new: Sequence[Unrecorded], installation: Installation) -> list[Recorded | SourceError]:
        """Does as `Store.register`."""
        with redis_errors(self._url):
            replies = self._replies(new, installation.id)
            if not all(replies):
                # Redis was emptied or replaced since it was last confirmed. The check raises, or finds a new id.
                installation.check()
                replies = self._replies(new, installation.id)
        if not all(replies):
            raise StoreUnavailable("Redis was emptied or replaced while batches were recorded; submit again")
        return [standing_of(one, reply) for one, reply in zip(new, replies, strict=True)]

    def _replies(self, new: Sequence[Unrecorded], installation: str) -> list[list[bytes]]:
        calls = [{**registration(one, self._settings), "installation_id": installation} for one in new]
        writes = [partial(_called, self._register, call) for call in calls]
        replicas = self._settings.replicas_to_wait_for

        def write() -> list[list[bytes]]:
            # A failover must not lose a batch whose id its producer has.
            if len(writes) == 1:
                return [durably(self._redis, writes[0], replicas=replicas, disk=False)]
            replies = all_durably(self._redis, writes, replicas=replicas, disk=False)
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            return replies

        return _persistently(write)


def _persistently(write: Callable[[], list[list[bytes]]]) -> list[list[bytes]]:
    """Calls the function again after a lost reply, a few times."""
    for _ in range(_TRIES - 1):
        with suppress(redis.ConnectionError, redis.TimeoutError):
            return write()
    return write()


def _called(script: Script[Any], call: Mapping[str, Any], client: redis.Redis) -> Any:
    return script.within(client)(**call)
