"""Places in a handler's hands: how many deliveries it has at once is bounded."""

from __future__ import annotations

import redis

from lowtide.protocol import Stage, keys
from lowtide.store import scripts


class Places:
    """The script that frees places."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._free_place = scripts.free_place.load(client)

    def free(self, batch_id: str, member: str, *, client: redis.Redis | None = None) -> None:
        """Gives a delivery's place in its handler's hands to the next. Harmless for one without a place.

        `client` is a pipeline that the script becomes a command of.
        """
        self._free_place.within(client or self._client)(
            batch=keys.batch(batch_id),
            clock=keys.clock(Stage.DELIVER.queue),
            member=member,
            in_hand_prefix=keys.in_hand(""),
            queued_prefix=keys.queued(""),
            hash_prefix=keys.PREFIX,
        )
