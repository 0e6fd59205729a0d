"""The providers that the running workers can serve. Workers announce them, and `submit` reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import redis

from lowtide.protocol import keys

ANNOUNCE_SECONDS = 30.0
"""How often a worker announces its providers."""
_FRESH_SECONDS = 120.0
"""An announcement that is older does not count: its worker has ended, or can no longer serve the provider."""


def announce(client: redis.Redis, providers: Iterable[str]) -> None:
    """Records that a worker can serve these providers now. Raises `redis.RedisError`."""
    seconds, _ = client.time()
    if now := dict.fromkeys(providers, seconds):
        client.zadd(keys.SERVING, now)


def unserved(client: redis.Redis, provider: str) -> str:
    """Returns the reason why no running worker can serve a provider, with the remedy; "" if one can.

    Without any announcement it also returns "": the workers may be of an earlier version, or start later. Makes one
    call. Raises `redis.RedisError`.
    """
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(keys.SERVING, 0, -1, withscores=True)
        (seconds, _), heard = pipe.execute()
    announced = cast("list[tuple[bytes, float]]", heard)
    served = sorted(name.decode() for name, moment in announced if seconds - moment < _FRESH_SECONDS)
    if not served or provider in served:
        return ""
    return (
        f"no running worker can serve provider {provider}, only {' and '.join(served)}: the workers' logs say at their "
        "start what is missing"
    )
