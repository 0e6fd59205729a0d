"""The connection to Redis: its client, its clock, and the translation of its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from lowtide.addresses import without_password
from lowtide.errors import StoreUnavailable
from lowtide.settings import Settings
from lowtide.store.durability import NotReplicated


def connect(settings: Settings) -> redis.Redis:
    """Returns a client whose waits end after `redis_timeout_seconds`. It reconnects by itself."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_connect_timeout=min(5.0, settings.redis_timeout_seconds),
        socket_timeout=settings.redis_timeout_seconds,
        socket_keepalive=True,
        health_check_interval=30,
    )


def redis_time(client: redis.Redis) -> float:
    """Returns the time of Redis's clock, in Unix seconds. Lowtide uses it, as the clocks of hosts may be wrong."""
    seconds, micros = client.time()
    return seconds + micros / 1e6


@contextmanager
def redis_errors(url: str) -> Iterator[None]:
    """Turns what redis-py raises within the `with` block into a `StoreUnavailable` that says what to do.

    `url` is Redis's; a password in it is not shown.
    """
    try:
        yield
    except NotReplicated as error:
        raise StoreUnavailable(
            f"the write to Redis at {without_password(url)} may be lost in a failover: it is {error}. Submit again "
            "with the same idempotency key, or check `lowtide list`"
        ) from error
    except redis.AuthenticationError as error:
        raise StoreUnavailable(
            f"Redis at {without_password(url)} rejects the password, or needs one: correct LOWTIDE_REDIS_URL "
            "(`lowtide up` prints it)"
        ) from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnavailable(
            f"Redis at {without_password(url)} is not reachable: start it (`lowtide up` starts one) "
            f"or set LOWTIDE_REDIS_URL ({type(error).__name__})"
        ) from error
    except redis.RedisError as error:
        raise StoreUnavailable(f"Redis at {without_password(url)} refused a command: {error}") from error
