"""The check that the Redis server is new enough for Lowtide."""

from __future__ import annotations

import redis

from lowtide.errors import UnsupportedServer

MINIMUM = (7, 0)
"""The oldest version of Redis. Lowtide counts a job's results by `BITCOUNT` over bits, which is new in Redis 7.0."""


WITH_WAITAOF = (7, 2)
"""The first version of Redis that can report that a write is on its disk."""


def require_server(client: redis.Redis) -> None:
    """Raises `UnsupportedServer` unless the server is Redis 7.0, Valkey 7.2, or newer.

    A forked or managed server counts as the version of Redis that it reports as compatible. Raises `redis.RedisError`
    if the server does not answer.
    """
    try:
        version = str(client.info("server").get("redis_version", ""))
    except redis.exceptions.NoPermissionError:
        raise UnsupportedServer(
            "Redis hides its version from this user: allow it INFO (ACL SETUSER <user> +info)"
        ) from None
    if not is_new_enough(version):
        raise UnsupportedServer(
            f"Redis {version or 'of an unknown version'} is too old: Lowtide needs Redis 7.0, Valkey 7.2, or newer. "
            "Upgrade the server, or set LOWTIDE_REDIS_URL to a newer one"
        )


def is_new_enough(version: str, least: tuple[int, int] = MINIMUM) -> bool:
    """Returns whether a version of Redis, such as 7.2.4, is at least `least`. Text that is no version is not."""
    parts = version.split(".")[:2]
    return tuple(int(part) if part.isascii() and part.isdecimal() else 0 for part in parts) >= least
