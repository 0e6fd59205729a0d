"""The connection to Redis: client, clock, and errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from lowtide.addresses import without_password
from lowtide.errors import StoreUnavailable
from lowtide.settings import Settings
from lowtide.store.durability import NotReplicated


def connect(settings: Settings) -> redis.Redis:
    """A client with bounded waits; it reconnects by itself."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_connect_timeout=min(5.0, settings.redis_timeout_seconds),
        socket_timeout=settings.redis_timeout_seconds,
        socket_keepalive=True,
        health_check_interval=30,
    )


def redis_time(client: redis.Redis) -> float:
    """The time by Redis's clock, in Unix seconds: those of the hosts around it may be wrong."""
    seconds, micros = client.time()
    return seconds + micros / 1e6


@contextmanager
def redis_errors(url: str) -> Iterator[None]:
    """Turns what redis-py raises into one clear `StoreUnavailable`."""
    try:
        yield
    except NotReplicated as error:
        raise StoreUnavailable(
            f"what was written to Redis at {without_password(url)} may last or not: it is {error}. Submit again with "
            "the same idempotency key, or look at `lowtide list`"
        ) from error
    except redis.AuthenticationError as error:
        raise StoreUnavailable(
            f"Redis at {without_password(url)} refuses the password, or wants one: correct LOWTIDE_REDIS_URL "
            "(`lowtide up` prints it)"
        ) from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnavailable(
            f"Redis at {without_password(url)} is not reachable: start it (`lowtide up` brings one along) "
            f"or set LOWTIDE_REDIS_URL ({type(error).__name__})"
        ) from error
    except redis.RedisError as error:
        raise StoreUnavailable(f"Redis at {without_password(url)} refused a command: {error}") from error
