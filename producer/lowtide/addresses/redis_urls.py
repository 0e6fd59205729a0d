"""URLs of Redis: one server, with TLS or without, or the Sentinels that know the present master.

    redis://user:password@host:6379/0
    rediss://host:6379/0?ssl_ca_certs=/etc/ssl/redis-ca.pem
    sentinel://:password@one:26379;sentinel://two:26379/0?master_name=mymaster

redis-py and Celery's broker read such URLs differently, so each is given what it understands. No text from this module
repeats a part of a URL.

Source: https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urldefrag

from redis.backoff import NoBackoff
from redis.retry import Retry

from lowtide.addresses.urls import ESCAPE, split_url

_DATABASE = re.compile("(/[0-9]{0,9})?", re.ASCII)
_TLS_OPTIONS = frozenset(
    ["ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"]
)
"""Options that redis-py and Celery's broker both know."""
TLS_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_CERTIFICATES = {
    name: value
    for value in ("required", "optional", "none")
    for name in (value, f"cert_{value}", f"CERT_{value.upper()}")
}
"""Values of `ssl_cert_reqs`, as redis-py and as Celery write them, by those of redis-py."""
_SENTINEL_OPTIONS = frozenset(["master_name", "sentinel_password"])
_SENTINEL_PORT = 26379
_SENTINEL_SECONDS = 2.0
"""Longest wait for one Sentinel. The next one is asked after it."""
_SENTINEL_EXAMPLE = "sentinel://one:26379;sentinel://two:26379/0?master_name=mymaster"


@dataclass(frozen=True, repr=False)
class RedisAddress:
    """A Redis, as its URL names it."""

    nodes: tuple[tuple[str, int], ...]
    """Hosts and ports: of the server, or of the Sentinels."""
    database: int
    username: str | None
    password: str | None
    tls: Mapping[str, Any] | None
    """Options of TLS, as redis-py names them. None: no TLS."""
    master_name: str | None = None
    """Name by which Sentinels know the master. None: a single server."""
    sentinel_password: str | None = None

    @property
    def sentinel_options(self) -> dict[str, Any]:
        """The arguments of redis-py for connections to the Sentinels."""
        options: dict[str, Any] = {
            "socket_connect_timeout": _SENTINEL_SECONDS,
            "socket_timeout": _SENTINEL_SECONDS,
            "retry": Retry(NoBackoff(), 0),  # the next Sentinel is asked instead
        }
        if self.sentinel_password:
            options["password"] = self.sentinel_password
        return options if self.tls is None else options | {"ssl": True} | dict(self.tls)


def parse_redis_url(url: str) -> RedisAddress:
    """Parses a URL that begins with redis://, rediss:// or sentinel://.

    Raises `ValueError` for any other, and for one from which redis-py and Celery would read different places. Its text
    never has the URL.
    """
    first = split_url(url.split(";", 1)[0], "redis://host:6379/0")
    if first.scheme == "sentinel":
        return _sentinels([split_url(one, _SENTINEL_EXAMPLE) for one in url.split(";")])
    if ";" in url:  # Celery reads it as the end of one broker's URL
        raise ValueError(f"it must be a single URL; {ESCAPE}")
    if first.scheme not in {"redis", "rediss"}:
        raise ValueError(
            "write redis://host:6379/0, or rediss:// for TLS, or "
            "sentinel://one:26379;sentinel://two:26379/0?master_name=mymaster"
        )
    options = _options(first, "a TLS option, as in rediss://host:6379/0?ssl_ca_certs=/etc/ssl/ca.pem")
    if options.keys() - (_TLS_OPTIONS if first.scheme == "rediss" else set()):
        raise ValueError(
            "after ? come only options of TLS, as in rediss://host:6379/0?ssl_ca_certs=/etc/ssl/ca.pem, and the "
            "database's number comes before it"
        )
    return RedisAddress(
        nodes=((unquote(first.hostname or "") or "127.0.0.1", first.port or 6379),),
        database=_database(first),
        username=unquote(first.username or "") or None,
        password=unquote(first.password or "") or None,
        tls=_tls(options) if first.scheme == "rediss" else None,
    )


def with_verified_certificate(url: str) -> str:
    """Returns a Redis URL that has every reader verify the server's certificate, unless its options decide.

    Without any option of TLS, Celery's broker would verify nothing.
    """
    if url.lower().startswith("rediss://") and "ssl_" not in url.partition("?")[2]:
        return f"{url.rstrip('?')}?ssl_cert_reqs=required"
    return url


def broker_config(url: str) -> dict[str, Any]:
    """Returns the settings by which a Celery app has this URL, or this list of URLs separated by `;`, as its broker.

    A URL of another kind of broker is returned as it is. Raises `ValueError` for a wrong URL of Redis by TLS or of
    Sentinels.
    """
    addresses = _broker_addresses(url)
    if not addresses:
        return {"broker_url": url}
    first = addresses[0]
    # Celery goes on to the next URL when one fails. It takes everything from that one, but the options of TLS.
    config: dict[str, Any] = {"broker_url": ";".join(chain.from_iterable(map(_broker_urls, addresses)))}
    if first.tls is not None:
        config["broker_use_ssl"] = dict(first.tls)
    if first.master_name is not None:
        config["broker_transport_options"] = {
            "master_name": first.master_name,
            "sentinel_kwargs": first.sentinel_options,
        }
    return config


def check_broker_url(url: str) -> None:
    """Raises `ValueError` unless this can be a broker's URL, or a list of them separated by `;`.

    The message never contains the URL.
    """
    for one in url.split(";"):
        split_url(one, "amqp://host//")
    broker_config(urldefrag(url)[0])


def _broker_addresses(url: str) -> list[RedisAddress]:
    """The Redis servers by TLS of a broker's URL, or its Sentinels; none for a broker of another kind."""
    if url.lower().startswith("sentinel://"):
        return [parse_redis_url(url)]
    parts = url.split(";")
    if not any(part.lower().startswith("rediss://") for part in parts):
        return []
    addresses = [parse_redis_url(part) for part in parts]
    if any(address.tls != addresses[0].tls for address in addresses):
        raise ValueError("its URLs differ in TLS: begin each with rediss://, and write the same options after each ?")
    return addresses


def _broker_urls(address: RedisAddress) -> list[str]:
    """The URLs of an address, as Celery reads them."""
    login = ""
    if address.username or address.password:
        login = f"{quote(address.username or '', safe='')}:{quote(address.password or '', safe='')}@"
    scheme = "rediss" if address.master_name is None else "sentinel"
    return [f"{scheme}://{login}{_host(host)}:{port}/{address.database}" for host, port in address.nodes]


def _sentinels(urls: Iterable[SplitResult]) -> RedisAddress:
    found = list(urls)
    if any(one.scheme != "sentinel" for one in found):
        raise ValueError(f"each URL of a list begins with sentinel://, as in {_SENTINEL_EXAMPLE}; {ESCAPE}")
    options: dict[str, str] = {}
    for one in found:
        options |= _options(one, f"the master's name, as in {_SENTINEL_EXAMPLE}")
    if options.keys() - _TLS_OPTIONS - _SENTINEL_OPTIONS:
        raise ValueError("after ? come only master_name, sentinel_password and options of TLS, such as ssl_ca_certs")
    if not options.get("master_name"):
        raise ValueError(f"name the master that the Sentinels watch: {_SENTINEL_EXAMPLE}")
    databases = {_database(one) for one in found if one.path.strip("/")} or {0}
    logins = {(one.username or "", one.password or "") for one in found if one.username or one.password} or {("", "")}
    if len(databases) > 1 or len(logins) > 1:
        raise ValueError("its URLs differ in user, password or database; write these in one of the URLs only")
    [(username, password)] = logins
    return RedisAddress(
        nodes=tuple((unquote(one.hostname or "") or "127.0.0.1", one.port or _SENTINEL_PORT) for one in found),
        database=databases.pop(),
        username=unquote(username) or None,
        password=unquote(password) or None,
        tls=_tls(options) if options.keys() & _TLS_OPTIONS else None,
        master_name=options["master_name"],
        sentinel_password=options.get("sentinel_password"),
    )


def _options(url: SplitResult, example: str) -> dict[str, str]:
    """The options after `?`. Raises `ValueError` for a wrong value, and where a fragment or no database comes first."""
    if not _DATABASE.fullmatch(url.path) or url.fragment:
        raise ValueError(f"after the host must come the number of a database, as in redis://host:6379/0; {ESCAPE}")
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    if {"password", "username"} & options.keys():
        raise ValueError("write user and password before the host, as in redis://user:password@host:6379/0")
    if url.query and not options:
        raise ValueError(f"after ? comes {example}")
    if "ssl_cert_reqs" in options:
        if options["ssl_cert_reqs"] not in _CERTIFICATES:
            raise ValueError("set ssl_cert_reqs to required, optional or none")
        options["ssl_cert_reqs"] = _CERTIFICATES[options["ssl_cert_reqs"]]
    return options


def _tls(options: Mapping[str, str]) -> dict[str, Any]:
    tls: dict[str, Any] = {"ssl_cert_reqs": "required"}
    tls |= {name: value for name, value in options.items() if name in _TLS_OPTIONS}
    if "ssl_check_hostname" in tls:
        tls["ssl_check_hostname"] = tls["ssl_check_hostname"].lower() not in {"false", "0", "no"}
    return tls


def _database(url: SplitResult) -> int:
    return int(url.path.strip("/") or 0)


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else quote(host, safe="")
