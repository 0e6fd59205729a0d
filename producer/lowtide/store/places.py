"""Places in a handler's hands: the number of deliveries that a handler has at once is bounded."""

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
        """Frees the place of a delivery and wakes the delivery that has waited longest; no effect without a place.

        - `member`: the segment's name on the clock.
        - `client`: a pipeline to which the call is added; None makes the call now.
        """
        self._free_place.within(client or self._client)(
            batch=keys.batch(batch_id),
            clock=keys.clock(Stage.DELIVER.queue),
            member=member,
            in_hand_prefix=keys.in_hand(""),
            queued_prefix=keys.queued(""),
            hash_prefix=keys.PREFIX,
        )
