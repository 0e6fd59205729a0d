"""Writes to Redis that must survive its crash: on its disk, and on as many replicas as a setting says.

WAITAOF and WAIT apply to the writes of their own connection, so the write and the waits are sent as one pipeline.

Source: https://redis.io/docs/latest/commands/waitaof/ (Redis 7.2, Valkey 7.2) and https://redis.io/docs/latest/commands/wait/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis
import redis.asyncio

_DISK_MILLISECONDS = 2000
_REPLICA_MILLISECONDS = 2000


class NotReplicated(redis.TimeoutError):
    """The write is in Redis, but not on enough replicas: a failover now could lose it."""


class NotOnDisk(redis.TimeoutError):
    """The write is in Redis, but not in its append-only file: a crash of the server now could lose it."""


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

    Raises `redis.TimeoutError`, or its subclasses `NotReplicated` and `NotOnDisk`, if they are not safe within two
    seconds: then they may or may not survive a crash.
    """
    with client.pipeline(transaction=False) as pipe:
        for write in writes:
            write(pipe)
        _wait_within(pipe, replicas=replicas, disk=disk)
        found = pipe.execute(raise_on_error=False)
    return _safe(found, len(writes), replicas=replicas, disk=disk)


async def durably_async(
    client: redis.asyncio.Redis,
    write: Callable[[redis.asyncio.Redis], Awaitable[object]],
    *,
    replicas: int,
    disk: bool,
) -> Any:
    """Does as `durably`, for an event loop."""
    if not disk and not replicas:
        return await write(client)
    async with client.pipeline(transaction=False) as pipe:
        await write(pipe)
        _wait_within(pipe, replicas=replicas, disk=disk)
        found = await pipe.execute(raise_on_error=False)
    [reply] = _safe(found, 1, replicas=replicas, disk=disk)
    if isinstance(reply, Exception):
        raise reply
    return reply


def _wait_within(pipe: Any, *, replicas: int, disk: bool) -> None:
    """Adds the commands to a pipeline that wait until its writes are safe."""
    if disk:
        pipe.execute_command("WAITAOF", 1, 0, _DISK_MILLISECONDS)
    if replicas:
        pipe.execute_command("WAIT", replicas, _REPLICA_MILLISECONDS)


def _safe(found: Sequence[Any], writes: int, *, replicas: int, disk: bool) -> list[Any]:
    """The replies to the writes of such a pipeline. Raises as `all_durably` does."""
    replies, waits = list(found[:writes]), found[writes:]
    if all(isinstance(reply, Exception) for reply in replies):
        return replies
    for wait in waits:
        if isinstance(wait, Exception) and not isinstance(wait, redis.ResponseError):
            raise wait
    if replicas and (isinstance(waits[-1], Exception) or waits[-1] < replicas):
        reached = 0 if isinstance(waits[-1], Exception) else waits[-1]
        raise NotReplicated(f"on {reached} of {replicas} replicas after {_REPLICA_MILLISECONDS / 1000:g} s")
    if disk and not isinstance(waits[0], Exception) and not waits[0][0]:
        raise NotOnDisk(f"not on disk after {_DISK_MILLISECONDS / 1000:g} s")
    return replies
