"""Writes to Redis that must survive its crash: on its disk, and on as many replicas as a setting says.

WAITAOF and WAIT apply to the writes of their own connection, so the write and the waits are sent as one pipeline.

Source: https://redis.io/docs/latest/commands/waitaof/ (Redis 7.2, Valkey 7.2) and https://redis.io/docs/latest/commands/wait/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import redis

_DISK_MILLISECONDS = 2000
_REPLICA_MILLISECONDS = 2000


class NotReplicated(redis.TimeoutError):
    """The write is in Redis, but not on enough replicas: a failover now could lose it."""


def durably(client: redis.Redis, write: Callable[[redis.Redis], object], *, replicas: int, disk: bool = True) -> Any:
    """Sends one write, waits until it is safe, and returns its reply, or raises its error: see `all_durably`."""
    if not disk and not replicas:
        return write(client)
    [reply] = all_durably(client, [write], replicas=replicas, disk=disk)
    if isinstance(reply, Exception):
        raise reply
    return reply


def all_durably(
    client: redis.Redis, writes: Sequence[Callable[[redis.Redis], object]], *, replicas: int, disk: bool = True
) -> list[Any]:
    """Sends writes together, waits until all are safe, and returns their replies. One that failed is an exception.

    - `writes`: each issues one write on the pipeline that it is given.
    - `replicas`: the number of replicas that must have the write in memory.
    - `disk`: whether the write must be in the append-only file. Servers without WAITAOF or without such a file are not
      waited for.

    Raises `redis.TimeoutError`, or its subclass `NotReplicated`, if they are not safe within two seconds: then they may
    or may not survive a crash.
    """
    with client.pipeline(transaction=False) as pipe:
        for write in writes:
            write(pipe)
        if disk:
            pipe.execute_command("WAITAOF", 1, 0, _DISK_MILLISECONDS)
        if replicas:
            pipe.execute_command("WAIT", replicas, _REPLICA_MILLISECONDS)
        found = pipe.execute(raise_on_error=False)
    replies, waits = found[: len(writes)], found[len(writes) :]
    if all(isinstance(reply, Exception) for reply in replies):
        return replies
    for wait in waits:
        if isinstance(wait, Exception) and not isinstance(wait, redis.ResponseError):
            raise wait
    if replicas and (isinstance(waits[-1], Exception) or waits[-1] < replicas):
        reached = 0 if isinstance(waits[-1], Exception) else waits[-1]
        raise NotReplicated(f"on {reached} of {replicas} replicas after {_REPLICA_MILLISECONDS / 1000:g} s")
    if disk and not isinstance(waits[0], Exception) and not waits[0][0]:
        raise redis.TimeoutError(f"not on disk after {_DISK_MILLISECONDS / 1000:g} s")
    return replies
