"""The queues on which Celery handlers listen: users' workers register them, deliveries and `submit` read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import redis

from lowtide.protocol import keys

BEAT_SECONDS = 30.0
"""How often a worker renews its registration."""
FRESH_SECONDS = 120.0
"""A worker that has been silent for longer does not count: deliveries wait until a worker listens again."""
_MOST = 100
"""Workers of one handler, and handlers, that are read at most."""


class Listener(NamedTuple):
    """A worker that takes, or took, a handler's deliveries from a queue."""

    queue: str
    worker: str
    silent: float
    """Seconds since it last registered."""

    @property
    def fresh(self) -> bool:
        """Whether the worker counts as listening."""
        return self.silent < FRESH_SECONDS


def elsewhere(task: str) -> str:
    """The name of a handler whose app has another broker than Lowtide's, under whatever name Lowtide knows that one."""
    return f"*:{task}"


def listeners(client: redis.Redis, handlers: Sequence[str]) -> list[list[Listener]]:
    """The workers of each handler, the last registered first. Makes one call for all."""
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        for handler in handlers:
            pipe.zrange(keys.listeners(handler), 0, _MOST - 1, desc=True, withscores=True)
        (seconds, micros), *found = pipe.execute()
    now = seconds + micros / 1e6
    return [[_listener(member.decode(), now - heard) for member, heard in one] for one in found]


def known_handlers(client: redis.Redis) -> list[str]:
    """The handlers that registered in the last 30 days, the last one first; at most 100."""
    return [name.decode() for name in cast("list[bytes]", client.zrange(keys.HANDLERS, 0, _MOST - 1, desc=True))]


def silence(spec: str, found: Sequence[Listener]) -> str:
    """The reason why no worker would take a delivery now, with the remedy; "" if one listens."""
    if found and found[0].fresh:
        return ""
    last = f" (last heard of {found[0].silent / 60:.0f} min ago, on queue {found[0].queue})" if found else ""
    return f"no worker listens for {spec}{last}: start its worker, or name its queue: {spec}@QUEUE"


def shared_queues(found: Mapping[str, Sequence[Listener]]) -> list[str]:
    """Warnings about queues on Lowtide's broker whose workers know different handlers.

    `found` has the workers of each handler.
    """
    queues: dict[str, dict[str, set[str]]] = {}
    for handler, workers in found.items():
        for one in workers:
            if one.fresh and not handler.startswith(elsewhere("")):
                queues.setdefault(one.queue, {}).setdefault(one.worker, set()).add(handler)
    return [
        f"queue {queue} is shared by workers of different apps ("
        f"{'; '.join(sorted({', '.join(sorted(names)) for names in workers.values()}))}): each takes "
        "messages meant for the other; give each app a queue of its own (task_default_queue)"
        for queue, workers in sorted(queues.items())
        if len({frozenset(names) for names in workers.values()}) > 1
    ]


def _listener(member: str, silent: float) -> Listener:
    # A queue may have blanks in its name; a worker has none.
    queue, _, worker = member.rpartition(" ")
    return Listener(queue, worker, silent)
