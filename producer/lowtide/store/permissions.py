"""The permissions that Lowtide needs as a user of Redis with an access control list (ACL).

Source: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import redis

from lowtide.errors import UnsupportedServer
from lowtide.protocol import Queue, keys

# Of each command, arguments that it accepts. None is run: see `lacking`.
_KEY = keys.INSTALLATION
_IN_TRANSACTION: tuple[tuple[str, ...], ...] = (
    ("bitcount", _KEY),
    ("brpop", _KEY, "1"),
    ("del", _KEY),
    ("evalsha", "0" * 40, "0"),
    ("exists", _KEY),
    ("expire", _KEY, "1"),
    ("get", _KEY),
    ("getrange", _KEY, "0", "1"),
    ("hdel", _KEY, "f"),
    ("hget", _KEY, "f"),
    ("hgetall", _KEY),
    ("hincrby", _KEY, "f", "1"),
    ("hlen", _KEY),
    ("hmget", _KEY, "f"),
    ("hset", _KEY, "f", "v"),
    ("hsetnx", _KEY, "f", "v"),
    ("incr", _KEY),
    ("info", "server"),
    ("llen", _KEY),
    ("lpush", _KEY, "v"),
    ("lrange", _KEY, "0", "1"),
    ("lrem", _KEY, "0", "v"),
    ("ltrim", _KEY, "0", "1"),
    ("pexpire", _KEY, "1"),
    ("ping",),
    ("publish", "/0.celery.pidbox", "m"),
    ("rpop", _KEY),
    ("rpush", _KEY, "v"),
    ("sadd", _KEY, "m"),
    ("scan", "0"),
    ("script|exists", "0" * 40),
    ("script|load", "return 1"),
    ("set", _KEY, "v"),
    ("setbit", _KEY, "0", "1"),
    ("setrange", _KEY, "0", "v"),
    ("smembers", _KEY),
    ("srem", _KEY, "m"),
    ("time",),
    ("wait", "0", "1"),
    ("waitaof", "0", "0", "1"),
    ("xadd", _KEY, "*", "f", "v"),
    ("zadd", _KEY, "1", "m"),
    ("zcard", _KEY),
    ("zcount", _KEY, "0", "1"),
    ("zpopmin", _KEY),
    ("zrange", _KEY, "0", "1"),
    ("zrangebyscore", _KEY, "0", "1"),
    ("zrank", _KEY, "m"),
    ("zrem", _KEY, "m"),
    ("zremrangebyscore", _KEY, "0", "1"),
    ("zrevrange", _KEY, "0", "1"),
    ("zrevrangebyscore", _KEY, "1", "0"),
    ("zscore", _KEY, "m"),
)
_BEFORE: tuple[tuple[str, ...], ...] = (("watch", _KEY), ("unwatch",), ("exec",))
_SAMPLE_KEYS = {
    f"~{keys.PREFIX}*": _KEY,
    "~lowtide.*": f"{Queue.JOBS}\x06\x163",
    "~_kombu.*": "_kombu.binding.lowtide.jobs",
    "~unacked*": "unacked_index",
    "~*.pidbox*": "w@host.celery.pidbox\x06\x163",  # of a priority
}
_UNTRIED = ("hello", "psubscribe", "punsubscribe", "select", "subscribe", "unsubscribe")
"""A connection uses these as it begins, or could not be used any more after them."""
_DENIAL = re.compile("ACL failure|has no permissions to run|user executing the script can't")
_COMMAND = re.compile(r"run the '([a-z|]+)' command")

KEYS = tuple(_SAMPLE_KEYS)
"""The patterns of the keys: Lowtide's own and its queues, and those of Celery."""
CHANNELS = ("&/{database}.celery.pidbox", "&/{database}.celeryev/*")
"""The patterns of the channels, on which Celery's workers are asked for their state, and report it."""
COMMANDS = tuple(
    sorted({*(words[0] for words in _IN_TRANSACTION), *(words[0] for words in _BEFORE), *_UNTRIED, "multi", "discard"})
)
"""The commands."""


def lacking(client: redis.Redis) -> list[str]:
    """Returns what the client's user needs and lacks, in the words of ACL SETUSER, such as `+zadd` and `~unacked*`.

    Redis checks the permissions of a command when it is added to a transaction, which is then discarded. So this
    changes nothing. Raises `redis.ConnectionError` and `redis.TimeoutError`.
    """
    samples = [("exists", sample) for sample in _SAMPLE_KEYS.values()]
    calls: list[tuple[str, ...]] = [*_BEFORE, ("multi",), *_IN_TRANSACTION, *samples, ("discard",)]
    found = []
    for call, refusal in zip(calls, _refusals(client, calls), strict=True):
        if refusal is not None:
            named = _COMMAND.search(refusal)
            pattern = next((pattern for pattern, sample in _SAMPLE_KEYS.items() if sample in call), "&*")
            found.append(f"+{call[0]}" if named else pattern)
    return list(dict.fromkeys(found))


def require_permissions(client: redis.Redis) -> None:
    """Raises `UnsupportedServer` if the client's user lacks a permission; `redis.RedisError` as `lacking` does."""
    if missing := lacking(client):
        raise UnsupportedServer(advice(missing))


def advice(missing: Iterable[str]) -> str:
    """Returns what the user lacks, in one sentence with the remedy."""
    return f"the user of Redis lacks permissions: ACL SETUSER <user> {' '.join(missing)}"


def denied(error: redis.RedisError) -> str | None:
    """Returns which permission an error of Redis asks for, as in `+zadd`; None for another error.

    Of a key or a channel Redis says no name: then the text is empty.
    """
    if not _is_denial(error):
        return None
    named = _COMMAND.search(str(error))
    return f"+{named[1]}" if named else ""


def _refusals(client: redis.Redis, calls: Sequence[tuple[str, ...]]) -> list[str | None]:
    """The texts with which Redis refuses permission for each of these calls, sent over a connection of their own."""
    connection: Any = client.connection_pool.get_connection()
    try:
        commands = [(*name.upper().split("|"), *arguments) for name, *arguments in calls]
        connection.send_packed_command(connection.pack_commands(commands))
        return [_refusal(connection) for _ in calls]
    finally:
        # If DISCARD is not allowed, the transaction ends with the connection.
        connection.disconnect()
        client.connection_pool.release(connection)


def _refusal(connection: Any) -> str | None:
    try:
        connection.read_response()
    except redis.ResponseError as error:
        return str(error) if _is_denial(error) else None
    return None


def _is_denial(error: redis.RedisError) -> bool:
    # Of a script and of EXEC, the error has another type.
    return isinstance(error, redis.exceptions.NoPermissionError) or bool(_DENIAL.search(str(error)))
