"""The checks of Redis: whether it answers, keeps its data and never evicts any."""

from __future__ import annotations

import time
from typing import Any

import redis

from lowtide import Settings, StoreUnavailable, UnsupportedServer
from lowtide.protocol import keys
from lowtide.settings import without_password
from lowtide.store import (
    WITH_WAITAOF,
    advice,
    connect,
    is_new_enough,
    is_silent,
    lacking,
    redis_errors,
    require_server,
    wrong_keys,
)
from lowtide_cli.commands.doctor.findings import Finding, Health

_SKEW_SECONDS = 2.0


def check_redis(settings: Settings) -> list[Finding]:
    """Returns the findings about Redis. The first says whether it answers."""
    url = settings.redis_url.get_secret_value()
    client = connect(settings)
    try:
        with redis_errors(url):
            before = time.time()
            seconds, micros = client.time()
            skew = seconds + micros / 1e6 - (before + time.time()) / 2
            require_server(client)
            missing = lacking(client)
            if missing:
                return [Finding("Redis", Health.FAIL, advice(missing))]
            info = client.info()
            wrong = wrong_keys(client)
            if wrong:
                return [Finding("Redis", Health.FAIL, key) for key in wrong]
            dead = client.llen(keys.DEAD_LETTERS)
            syncs = _syncs(client)
            events: Any = client.zrange(keys.HOOKS, 0, -1, withscores=True)
    except (StoreUnavailable, UnsupportedServer) as error:
        return [Finding("Redis", Health.FAIL, str(error))]
    finally:
        client.close()
    server = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    return [
        Finding("Redis", Health.OK, f"{server} at {without_password(url)}"),
        _eviction(str(info.get("maxmemory_policy", "unknown"))),
        _append_only(on=bool(info.get("aof_enabled"))),
        *_last_second(str(info["redis_version"]), syncs),
        _skew(skew),
        _dead_letters(dead),
        *([] if settings.webhook_url is None else [_webhook_events(silent=is_silent(dict(events)))]),
    ]


def _eviction(policy: str) -> Finding:
    if policy == "noeviction":
        return Finding("Eviction", Health.OK, policy)
    seen = f"maxmemory-policy is {policy}: Redis may delete batches when memory is short"
    advice = "CONFIG SET maxmemory-policy noeviction, and the same in its configuration"
    return Finding("Eviction", Health.FAIL, seen, advice)


def _append_only(*, on: bool) -> Finding:
    if on:
        return Finding("Append-only", Health.OK, "on")
    seen = "off: a restart of Redis loses every batch since its last snapshot"
    return Finding("Append-only", Health.WARN, seen, "CONFIG SET appendonly yes, and the same in its configuration")


def _syncs(client: redis.Redis) -> str:
    """Returns how often the server writes its append-only file to the disk; empty if it does not say."""
    try:
        return str(client.config_get("appendfsync").get("appendfsync", ""))
    except redis.ResponseError:  # managed servers refuse CONFIG
        return ""


def _last_second(version: str, syncs: str) -> list[Finding]:
    """Returns a finding if Lowtide cannot wait until a write is on the server's disk."""
    if syncs == "always" or is_new_enough(version, WITH_WAITAOF):
        return []
    seen = (
        f"Redis {version} cannot report that a write is on its disk (WAITAOF): a power cut loses up to a second of "
        "batches and notes, and a job of that second may be paid for twice"
    )
    advice = "upgrade to Redis 7.2 or Valkey 7.2, or CONFIG SET appendfsync always and the same in its configuration"
    return [Finding("Durability", Health.WARN, seen, advice)]


def _skew(skew: float) -> Finding:
    seen = f"{abs(skew) * 1000:,.0f} ms {'ahead of' if skew < 0 else 'behind'} Redis"
    if abs(skew) < _SKEW_SECONDS:
        return Finding("Clock", Health.OK, seen)
    seen = f"{seen}: the ages and times shown here are wrong by this difference"
    return Finding("Clock", Health.WARN, seen, "synchronise the clocks of both machines (NTP)")


def _dead_letters(count: int) -> Finding:
    if not count:
        return Finding("Dead letters", Health.OK, "no unreadable messages")
    seen = f"{count:,} {'message' if count == 1 else 'messages'} that no worker could process"
    return Finding("Dead letters", Health.WARN, seen, "lowtide dead-letters list")


def _webhook_events(*, silent: bool | None) -> Finding:
    """Returns a finding about events of the provider, for which LOWTIDE_WEBHOOK_URL is set."""
    if silent is None:
        return Finding("Events", Health.OK, "no job with a webhook has ended yet")
    if not silent:
        return Finding("Events", Health.OK, "the provider's events come")
    seen = "jobs have ended without an event, so jobs with a webhook are polled like others"
    advice = (
        "check that LOWTIDE_WEBHOOK_URL leads to your hooks application, and that it has this setting too; "
        "its log says what it refuses"
    )
    return Finding("Events", Health.WARN, seen, advice)
