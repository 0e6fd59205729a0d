"""Places in a handler's hands: how many deliveries it has at once is bounded."""

from __future__ import annotations

import redis

from lowtide.protocol import Stage, keys
from lowtide.store.connection import Script


def free_place(script: Script, batch_id: str, member: str, client: redis.Redis) -> None:
    """Gives a delivery's place in its handler's hands to the next. Harmless for one without a place."""
    script(
        keys=[keys.batch(batch_id), keys.clock(Stage.DELIVER.queue)],
        args=[member, keys.in_hand(""), keys.queued(""), keys.PREFIX],
        client=client,
    )
