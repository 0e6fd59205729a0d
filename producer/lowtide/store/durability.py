"""Writes to Redis that must outlive it: on its disk, and on as many replicas as a setting says.

WAITAOF and WAIT speak of what their own connection wrote, so the write and the waiting go out as one pipeline.
Source: https://redis.io/docs/latest/commands/waitaof/ (Redis 7.2, Valkey 7.2) and https://redis.io/docs/latest/commands/wait/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

_DISK_MILLISECONDS = 2000
_REPLICA_MILLISECONDS = 2000


class NotReplicated(redis.TimeoutError):
    """The write is in Redis, but not on as many replicas as it must be: a failover now could forget it."""


def durably(client: redis.Redis, write: Callable[[redis.Redis], object], *, replicas: int, disk: bool = True) -> Any:
    """Sends one write, waits until it is safe, and returns its reply.

    With `disk`, that is until it is in the append-only file, where the server has one to ask; an older server does not
    know the question. With `replicas`, also until so many have it in memory. Raises what the write raises,
    `redis.TimeoutError` where it is not safe in time: then it may or may not last.
    """
    if not disk and not replicas:
        return write(client)
    with client.pipeline(transaction=False) as pipe:
        write(pipe)
        if disk:
            pipe.execute_command("WAITAOF", 1, 0, _DISK_MILLISECONDS)
        if replicas:
            pipe.execute_command("WAIT", replicas, _REPLICA_MILLISECONDS)
        reply, *waits = pipe.execute(raise_on_error=False)
    if isinstance(reply, Exception):
        raise reply
    for wait in waits:
        if isinstance(wait, Exception) and not isinstance(wait, redis.ResponseError):
            raise wait
    if replicas and (isinstance(waits[-1], Exception) or waits[-1] < replicas):
        reached = 0 if isinstance(waits[-1], Exception) else waits[-1]
        raise NotReplicated(f"on {reached} of {replicas} replicas after {_REPLICA_MILLISECONDS / 1000:g} s")
    if disk and not isinstance(waits[0], Exception) and not waits[0][0]:
        raise redis.TimeoutError(f"not on disk after {_DISK_MILLISECONDS / 1000:g} s")
    return reply
