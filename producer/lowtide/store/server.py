"""The server behind the store: the oldest version that Lowtide works with, and the check for it."""

from __future__ import annotations

import redis

from lowtide.errors import UnsupportedServer

MINIMUM = (7, 0)
"""`BITCOUNT` by bits, which tells when all of a job's requests have their results, came with Redis 7.0."""


def require_server(client: redis.Redis) -> None:
    """Raises `UnsupportedServer` unless the server is Redis 7.0, Valkey 7.2, or newer.

    A forked or managed server counts as the version of Redis that it says it is compatible with. What redis-py raises
    where nobody answers passes through.
    """
    try:
        version = str(client.info("server").get("redis_version", ""))
    except redis.exceptions.NoPermissionError:
        raise UnsupportedServer(
            "Redis does not tell its version to this user: allow it INFO (ACL SETUSER <user> +info)"
        ) from None
    if not is_new_enough(version):
        raise UnsupportedServer(
            f"Redis {version or 'of an unknown version'} is too old: Lowtide needs Redis 7.0, Valkey 7.2, or newer. "
            "Upgrade the server, or set LOWTIDE_REDIS_URL to a newer one"
        )


def is_new_enough(version: str) -> bool:
    """Whether `version` of Redis, as in 7.2.4, can be worked with; one that is no number cannot."""
    parts = version.split(".")[:2]
    return tuple(int(part) if part.isascii() and part.isdecimal() else 0 for part in parts) >= MINIMUM
