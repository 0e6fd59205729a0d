"""The connection to Redis: its client, its clock, and the translation of its errors."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from lowtide.addresses import TLS_FILES, RedisAddress, parse_redis_url, without_password
from lowtide.errors import StoreUnavailable
from lowtide.settings import Settings
from lowtide.store.durability import NotOnDisk, NotReplicated
from lowtide.store.permissions import denied

_SENTINEL_FAILURE = re.compile(r" - (?:\w+:)?(\w+Error)\b")


def connect(settings: Settings, *, seconds: float | None = None) -> redis.Redis:
    """Returns a client whose waits end after `redis_timeout_seconds`. It reconnects by itself.

    Where the URL names Sentinels, each new connection leads to the master that they name then.

    - `seconds`: longest wait, in place of the setting's, without another attempt. None: the setting's.
    """
    # A script whose reply was lost may have run: only its caller knows whether it may run again.
    options = _options(settings, seconds) | {"retry": Retry(NoBackoff(), 0)}
    address = parse_redis_url(settings.redis_url.get_secret_value())
    if address.master_name is None:
        return redis.Redis.from_url(settings.redis_url.get_secret_value(), **options)
    client: redis.Redis = _sentinel(address, Sentinel).master_for(**_of_master(address, options))
    return client


def connect_async(settings: Settings) -> redis.asyncio.Redis:
    """Returns a client for the running event loop, which behaves as that of `connect`."""
    options = _options(settings, None) | {"retry": AsyncRetry(NoBackoff(), 0)}
    address = parse_redis_url(settings.redis_url.get_secret_value())
    if address.master_name is None:
        return redis.asyncio.Redis.from_url(settings.redis_url.get_secret_value(), **options)
    client: redis.asyncio.Redis = _sentinel(address, AsyncSentinel).master_for(**_of_master(address, options))
    return client


def _options(settings: Settings, seconds: float | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_connect_timeout": min(5.0, seconds or settings.redis_timeout_seconds),
        "socket_timeout": seconds or settings.redis_timeout_seconds,
    }
    if seconds is None:
        options |= {"socket_keepalive": True, "health_check_interval": 30}
    return options


def _sentinel(address: RedisAddress, kind: Callable[..., Any]) -> Any:
    return kind(address.nodes, sentinel_kwargs=address.sentinel_options)


def _of_master(address: RedisAddress, options: dict[str, Any]) -> dict[str, Any]:
    if address.tls is not None:
        options |= {"ssl": True, **address.tls}
    login = {"db": address.database, "username": address.username, "password": address.password}
    return {"service_name": address.master_name, **login, **options}


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
    except redis.RedisError as error:
        raise StoreUnavailable(described(error, url)) from error


def described(error: redis.RedisError, url: str) -> str:
    """Returns what an error of redis-py means for a server, and what to do, without a password."""
    where = f"Redis at {without_password(url)}"
    match error:
        case NotReplicated():
            return f"the write to {where} may be lost in a failover: it is {error}. Do it again under the same key"
        case NotOnDisk():
            return f"the write to {where} may be lost in a crash: it is {error}. Do it again under the same key"
        case MasterNotFoundError():
            return _no_master(error, parse_redis_url(url), where)
        case redis.AuthenticationError():
            remedy = (
                "correct LOWTIDE_REDIS_URL; if `lowtide up` runs it, run the line that it printed, as . ~/.lowtide/env"
            )
            return f"{where} rejects the password, or needs one: {remedy}"
        case redis.ConnectionError() | redis.TimeoutError():
            problem = _tls_problem(error, url)
            if problem:
                return f"{where} cannot be reached by TLS: {problem}"
            return (
                f"{where} is not reachable: start it (`lowtide up` starts one) "
                f"or set LOWTIDE_REDIS_URL{_tls_hint(error, url)} ({type(error).__name__})"
            )
    permission = denied(error)
    if permission is None:
        return f"{where} refused a command: {error}"
    lack = f"ACL SETUSER <user> {permission}" if permission else "a command of a script, or keys or channels"
    return f"{where} does not allow its user all that Lowtide needs: {lack}. `lowtide doctor` lists all that is missing"


def _no_master(error: MasterNotFoundError, address: RedisAddress, where: str) -> str:
    # redis-py adds each Sentinel's error: its type, which some versions put after a category.
    failures = _SENTINEL_FAILURE.findall(str(error))
    if "AuthenticationError" in failures:
        return f"{where}: a Sentinel needs a password: add sentinel_password= to LOWTIDE_REDIS_URL"
    if len(failures) >= len(address.nodes):
        return f"{where} is not reachable: no Sentinel answers. Start them, or correct LOWTIDE_REDIS_URL"
    return (
        f"{where} is not reachable: the Sentinels know no running master {address.master_name!r:.80}. Correct "
        "master_name in LOWTIDE_REDIS_URL, or wait until they have chosen a new master"
    )


def _tls_problem(error: BaseException, url: str) -> str:
    """The problem of a connection by TLS, with the remedy; "" if it is something else."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case ssl.SSLCertVerificationError():
                return (
                    f"its certificate is not accepted ({cause.verify_message}); name the file of the authority that "
                    "signed it, as in rediss://host:6379/0?ssl_ca_certs=/etc/ssl/redis-ca.pem, and the host as the "
                    "certificate names it"
                )
            case ssl.SSLError():
                return (
                    f"{cause.reason or 'the connection was broken off'}; check that this port expects TLS, and give a "
                    "certificate of your own by ssl_certfile and ssl_keyfile if Redis asks for one"
                )
            case OSError() if unreadable := _unreadable_file(url):
                return f"the file of {unreadable} cannot be read; correct its path in LOWTIDE_REDIS_URL"
        cause = cause.__cause__ or cause.__context__
    return ""


def _tls_hint(error: redis.RedisError, url: str) -> str:
    """A server without TLS waits for the end of a handshake that it cannot read; one with TLS closes the connection."""
    if parse_redis_url(url).tls is not None:
        return " (with redis://, if it has no TLS)" if isinstance(error, redis.TimeoutError) else ""
    closed = "closed" in str(error) or isinstance(error.__cause__ or error.__context__, ConnectionResetError)
    return " (with rediss://, if it expects TLS)" if closed else ""


def _unreadable_file(url: str) -> str:
    options = parse_redis_url(url).tls or {}
    return next((name for name in TLS_FILES if name in options and not os.access(options[name], os.R_OK)), "")
