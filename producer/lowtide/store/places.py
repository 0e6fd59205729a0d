"""Places in a handler's hands: the number of deliveries that a handler has at once is bounded."""

from __future__ import annotations

import redis

from lowtide.protocol import Stage, keys
from lowtide.store.connection import Script


def free_place(script: Script, batch_id: str, member: str, client: redis.Redis) -> None:
    """Frees the place of a delivery and wakes the delivery that has waited longest; no effect without a place.

    - `script`: `free_place.lua`, loaded.
    - `member`: the segment's name on the clock.
    - `client`: the connection, or a pipeline to which the call is added.
    """
    script(
        keys=[keys.batch(batch_id), keys.clock(Stage.DELIVER.queue)],
        args=[member, keys.in_hand(""), keys.queued(""), keys.PREFIX],
        client=client,
    )
