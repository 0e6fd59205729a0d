"""Keys of Lowtide's that another program has made something else of.

Redis then refuses the commands of all batches that need the key, by an error that does not name it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis

from lowtide.protocol import Queue, keys
from lowtide.states import ProviderName

_PROBES = {"sorted set": "ZCARD", "hash": "HLEN", "list": "LLEN", "string": "GETRANGE"}
"""For each type, a command that is refused for a key of another one: no user of Redis needs another permission."""
_SHARED = {
    **dict.fromkeys(
        [
            *(keys.BATCHES, keys.DELETED, keys.GATHERED, keys.HANDLERS, keys.HINTS, keys.HOOKS, keys.PARKED),
            *(keys.SERVING, keys.UNDELIVERED, keys.UNACKED_INDEX),
            *map(keys.clock, Queue),
            *map(keys.live, ProviderName),
            *map(keys.models, ProviderName),
            *map(keys.served, ProviderName),
        ],
        "sorted set",
    ),
    **dict.fromkeys([keys.CENSUS, keys.COUNTERS, keys.LATENCIES, keys.UNACKED, keys.entity(keys.SWEEP_MEMBER)], "hash"),
    **dict.fromkeys([keys.ARRIVALS, keys.DEAD_LETTERS, *Queue], "list"),
    **dict.fromkeys(
        [
            *(keys.INSTALLATION, keys.WEBHOOKS, keys.ARRIVALS_LOCK, keys.ARRIVALS_TOLD),
            *map(keys.limit, ProviderName),
            *map(keys.ticked, Queue),
        ],
        "string",
    ),
}
"""The keys that do not belong to one batch, each with its type."""
_MOST_MODELS = 100
_MOST_STRANDS = 10
"""Strands of a model that are checked: the first ones, as one of these can stop its line."""
_REMEDY = "restore it from a backup, or delete it"


def wrong_keys(client: redis.Redis) -> list[str]:
    """Returns a sentence about each key, of those that many batches share, that has another type than Lowtide gives it.

    Raises `redis.RedisError` for a server that does not answer.
    """
    expected = dict(_SHARED)
    for provider in ProviderName:
        expected |= dict(_of_models(client, provider))
    with client.pipeline(transaction=False) as pipe:
        for key, kind in expected.items():
            pipe.execute_command(_PROBES[kind], key, *((0, 0) if kind == "string" else ()))
        replies: list[Any] = pipe.execute(raise_on_error=False)
    return [
        f"the key {key} of Redis is no {kind} any more, because another program has written to it; {_REMEDY}"
        for (key, kind), reply in zip(expected.items(), replies, strict=True)
        if is_wrong(reply)
    ]


def is_wrong(reply: object) -> bool:
    """Returns whether a reply of Redis, or an error, says that a key has another type than its command needs."""
    return isinstance(reply, redis.ResponseError) and "WRONGTYPE" in str(reply)


def _of_models(client: redis.Redis, provider: ProviderName) -> Iterator[tuple[str, str]]:
    try:
        found: Any = client.zrevrange(keys.models(provider), 0, _MOST_MODELS - 1)
    except redis.ResponseError:
        return
    models = [name.decode(errors="replace") for name in found]
    with client.pipeline(transaction=False) as pipe:
        for model in models:
            pipe.zrange(keys.strands(provider, model), 0, _MOST_STRANDS - 1)
        lines: list[Any] = pipe.execute(raise_on_error=False)
    for model, strands in zip(models, lines, strict=True):
        yield keys.waiting(provider, model), "sorted set"
        yield keys.strands(provider, model), "sorted set"
        for strand in strands if isinstance(strands, list) else ():
            yield keys.strand(provider, strand.decode(errors="replace"), model), "sorted set"
        yield keys.strand_of(provider, model), "hash"
        yield keys.share(provider, model), "hash"
        yield keys.live_tokens(provider, model), "hash"
        yield keys.quota(provider, model), "string"
