"""Writes to Redis that must survive its crash: on its disk, and on as many replicas as a setting says.

WAITAOF and WAIT apply to the writes of their own connection, so the write and the waits are sent as one pipeline.

Source: https://redis.io/docs/latest/commands/waitaof/ (Redis 7.2, Valkey 7.2) and https://redis.io/docs/latest/commands/wait/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

_DISK_MILLISECONDS = 2000
_REPLICA_MILLISECONDS = 2000


class NotReplicated(redis.TimeoutError):
    """The write is in Redis, but not on enough replicas: a failover now could lose it."""


def durably(client: redis.Redis, write: Callable[[redis.Redis], object], *, replicas: int, disk: bool = True) -> Any:
    """Sends one write, waits until it is safe, and returns its reply.

    - `write`: issues the write on the client or pipeline that it is given.
    - `replicas`: the number of replicas that must have the write in memory.
    - `disk`: whether the write must be in the append-only file. Servers without WAITAOF or without such a file are not
      waited for.

    Raises what the write raises. Raises `redis.TimeoutError`, or its subclass `NotReplicated`, if the write is not safe
    within two seconds: then it may or may not survive a crash.
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
