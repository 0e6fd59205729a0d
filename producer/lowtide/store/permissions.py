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

_Call = tuple[str, ...]

# Of each command, arguments that it accepts. None is run: see `lacking`.
_KEY = keys.PROBE
_IN_TRANSACTION: tuple[_Call, ...] = (
    ("bitcount", _KEY),
    ("copy", _KEY, _KEY),
    ("brpop", _KEY, "1"),
    ("del", _KEY),
    ("evalsha", "0" * 40, "0"),
    ("exists", _KEY),
    ("expire", _KEY, "1"),
    ("get", _KEY),
    ("getbit", _KEY, "0"),
    ("getrange", _KEY, "0", "1"),
    ("hdel", _KEY, "f"),
    ("hget", _KEY, "f"),
    ("hgetall", _KEY),
    ("hincrby", _KEY, "f", "1"),
    ("hlen", _KEY),
    ("hmget", _KEY, "f"),
    ("hset", _KEY, "f", "v"),
    ("hsetnx", _KEY, "f", "v"),
    ("hvals", _KEY),
    ("incr", _KEY),
    ("info", "server"),
    ("llen", _KEY),
    ("lpush", _KEY, "v"),
    ("lrange", _KEY, "0", "1"),
    ("lrem", _KEY, "0", "v"),
    ("ltrim", _KEY, "0", "1"),
    ("pexpire", _KEY, "1"),
    ("ping",),
    ("rpop", _KEY),
    ("rpush", _KEY, "v"),
    ("sadd", _KEY, "m"),
    ("scan", "0"),
    ("script|exists", "0" * 40),
    ("script|load", "return 1"),
    ("set", _KEY, "v"),
    ("setbit", _KEY, "0", "1"),
    ("setrange", _KEY, "0", "v"),
    ("sismember", _KEY, "m"),
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
_BEFORE: tuple[_Call, ...] = (("watch", _KEY), ("unwatch",), ("exec",))
_BEGIN: _Call = ("multi",)
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
_CELERY_CHANNELS = ("&/{database}.celery.pidbox", "&/{database}.celeryev/*")
CHANNELS = (f"&{keys.PREFIX}*", *_CELERY_CHANNELS)
"""The patterns of the channels: Lowtide's own, on which changes of batches are published, and those on which Celery's
workers are asked for their state, and report it."""
COMMANDS = tuple(
    sorted({*(name for name, *_ in (*_IN_TRANSACTION, *_BEFORE, _BEGIN)), *_UNTRIED, "publish", "discard"})
)
"""The commands."""


def lacking(client: redis.Redis) -> list[str]:
    """Returns what the client's user needs and lacks, in the words of ACL SETUSER, such as `+zadd` and `~unacked*`.

    Redis checks the permissions of a command when it is added to a transaction, which is then discarded. So this
    changes nothing. Raises `redis.ConnectionError` and `redis.TimeoutError`, and `UnsupportedServer` for a server that
    has no transactions.
    """
    database = client.connection_pool.connection_kwargs.get("db") or 0
    samples = [("exists", sample) for sample in _SAMPLE_KEYS.values()]
    channels = {f"/{database}.celery.pidbox": _CELERY_CHANNELS, keys.changed(""): CHANNELS[:1]}
    published = [("publish", channel, "m") for channel in channels]
    calls = [*_IN_TRANSACTION, *published, *samples, ("discard",)]
    found = []
    for call, refusal in _refusals(client, calls):
        if refusal is not None:
            named = _COMMAND.search(refusal)
            patterns = [pattern for pattern, sample in _SAMPLE_KEYS.items() if sample in call]
            needed = (pattern for part in call for pattern in channels.get(part, ()))
            patterns += [pattern.format(database=database) for pattern in needed]
            found += [f"+{call[0]}"] if named else patterns
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


def _refusals(client: redis.Redis, calls: Sequence[_Call]) -> list[tuple[_Call, str | None]]:
    """Each call with the text by which Redis refuses permission for it, or None.

    They are sent over a connection of their own. If no transaction can begin, none of `calls` is sent: Redis would
    carry them out.
    """
    connection: Any = client.connection_pool.get_connection()
    try:
        connection.send_packed_command(connection.pack_commands(map(_command, [*_BEFORE, _BEGIN])))
        before = [(call, _refusal(connection)) for call in _BEFORE]
        try:
            connection.read_response()
        except redis.ResponseError as error:
            if not _is_denial(error):
                raise UnsupportedServer(f"Redis has no transactions: {error}") from error
            return [*before, (_BEGIN, str(error))]
        connection.send_packed_command(connection.pack_commands(map(_command, calls)))
        return [*before, *((call, _refusal(connection)) for call in calls)]
    finally:
        # If DISCARD is not allowed, the transaction ends with the connection.
        connection.disconnect()
        client.connection_pool.release(connection)


def _command(call: _Call) -> _Call:
    name, *arguments = call
    return (*name.upper().split("|"), *arguments)


def _refusal(connection: Any) -> str | None:
    try:
        connection.read_response()
    except redis.ResponseError as error:
        return str(error) if _is_denial(error) else None
    return None


def _is_denial(error: redis.RedisError) -> bool:
    # Of a script and of EXEC, the error has another type.
    return isinstance(error, redis.exceptions.NoPermissionError) or bool(_DENIAL.search(str(error)))
