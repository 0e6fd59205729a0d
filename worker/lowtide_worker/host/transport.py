"""Celery's Redis transport with fixes, so that neither a lost connection nor a malformed message ends the worker.

1. Celery 5.7.0 closes a lost broker connection twice. The second close tries to restore unacknowledged messages
   through a transport without a client, and the worker exits. This transport leaves such messages to the visibility
   timeout; the clock starts their work again long before. `tests/integration/test_redis_restart.py` tests this. Once
   that test passes without the fix, the fix can be removed.
2. Messages on Lowtide's own queues pass `lowtide_worker.host.reader` before kombu sees them. A refused message becomes
   a dead letter.
3. Other malformed messages, such as control messages and unacknowledged messages to be restored, raise errors inside
   the worker's event loop. Here each of them becomes a dead letter too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import redis
from kombu.transport import redis as kombu_redis
from kombu.utils.json import loads

from lowtide.protocol import Queue
from lowtide.text import counted
from lowtide_worker.events import Event
from lowtide_worker.host.reader import Unacceptable, accepted

log = logging.getLogger(__name__)

_QUEUES = {queue.value: queue for queue in Queue}
_NOTHING = b"null"
"""The replacement for a refused message. Kombu goes on to the next queue, as after any other message."""
_CONNECTION_ERRORS = (OSError, redis.RedisError)
"""Errors that Celery treats as a lost connection or channel: it connects again."""


class QoS(kombu_redis.QoS):
    """The bookkeeping of unacknowledged messages, which does not fail when the connection is already gone."""

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Restores unacknowledged messages, if there is still a connection."""
        self._guarded(lambda: super(QoS, self).restore_unacked_once(stderr=stderr))

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Restores one message. A malformed one becomes a dead letter, so that the others are restored."""
        try:
            super().restore_by_tag(tag, client=client, leftmost=leftmost)
        except _CONNECTION_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - whatever kombu fails on must leave the queue
            with self.channel.conn_or_acquire(client) as connected:
                _store_dead_letter(
                    f"cannot be restored: {error}", self.unacked_key, connected.hget(self.unacked_key, tag) or b""
                )
            self._remove_from_indices(tag).execute()

    def ack(self, delivery_tag: str) -> None:
        """Acknowledges a message. Raises `ConnectionResetError` for a lost connection, which Celery handles."""
        self._connected(lambda: super(QoS, self).ack(delivery_tag))

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Rejects a message. Raises `ConnectionResetError` for a lost connection."""
        self._connected(lambda: super(QoS, self).reject(delivery_tag, requeue=requeue))

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (AttributeError, OSError, *self.channel.connection_errors) as error:
            log.warning(
                "%s again after the visibility timeout: %s",
                counted(len(self._delivered), "message comes", "messages come"),
                error,
                extra=Event.BROKER_UNACKNOWLEDGED.extra,
            )
            self._delivered.clear()

    def _connected(self, action: Callable[[], None]) -> None:
        try:
            action()
        except AttributeError as error:
            raise ConnectionResetError(f"the broker connection is gone: {error}") from error


class _Reading(kombu_redis.Channel):
    """The part of a channel that passes all messages from Lowtide's queues through the reader."""

    QoS = QoS

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous=asynchronous)
        client.set_response_callback("BRPOP", self._popped)
        return client

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except redis.ResponseError as error:
            # Celery takes this for a lost connection, and its log names only the type of the error.
            log.warning("a read of the queues failed: %s", error, extra=Event.BROKER_READ_FAILED.extra)
            raise

    def _popped(self, reply: Any, **_: object) -> tuple[bytes, bytes] | None:
        """Checks the reply to a read of the queues: the queue's key, which may be one for a priority, and a message."""
        if not reply:
            return None
        if not isinstance(reply, (list, tuple)) or len(reply) != 2:
            raise redis.ConnectionError(f"a read of the queues was answered with {reply!r:.100}")
        key, raw = reply
        queue = _QUEUES.get(key.partition(self.sep.encode())[0].decode(errors="replace"))
        if queue is None:
            return key, _decodable(raw, key) or _NOTHING
        try:
            return key, accepted(raw, queue)
        except Unacceptable as refusal:
            _store_dead_letter(str(refusal), queue, raw)
            return key, _NOTHING

    def _handle_message(self, client: Any, r: Any) -> dict[str, Any]:
        """Checks the reply of a subscription: a control message, or an event of another worker."""
        message: dict[str, Any] = super()._handle_message(client, r)
        if isinstance(message["data"], bytes):
            message["data"] = _decodable(message["data"], message["channel"])
        return message

    def _do_restore_message(
        self, payload: Any, exchange: Any, routing_key: Any, pipe: Any, leftmost: bool = False
    ) -> None:
        # Without this check kombu would log and drop a malformed message.
        if not _is_envelope(payload) or not isinstance(exchange, str) or not isinstance(routing_key, str):
            raise ValueError("not an envelope")
        payload["headers"] = payload.get("headers") or {}
        super()._do_restore_message(payload, exchange, routing_key, pipe, leftmost)


class Channel(_Reading):
    """The channel to one server."""


class SentinelChannel(_Reading, kombu_redis.SentinelChannel):
    """The channel to the master that Sentinels name."""


class _Guarded(kombu_redis.Transport):
    """The part of a transport that a malformed message does not stop."""

    def _deliver(self, message: Any, queue: str) -> None:
        if message is None:
            return
        if queue in _QUEUES:
            super()._deliver(message, queue)
            return
        if not _is_envelope(message):
            _store_dead_letter("not an envelope", queue, repr(message).encode(errors="replace"))
            return
        try:
            super()._deliver(message, queue)
        except _CONNECTION_ERRORS:
            raise
        except Exception as error:
            log.exception("broker: a message on %s cannot be handled", queue, extra=Event.BROKER_MESSAGE_FAILED.extra)
            _store_dead_letter(f"cannot be handled: {error}", queue, repr(message).encode(errors="replace"))
            self._reject(message["properties"]["delivery_tag"])

    def _reject(self, tag: str) -> None:
        for channel in self.channels:
            if tag in channel.qos._delivered:  # noqa: SLF001 - kombu has no other way to ask
                channel.basic_reject(tag)


class Transport(_Guarded):
    """The transport for `redis://` and `rediss://` URLs in workers."""

    Channel = Channel


class SentinelTransport(_Guarded, kombu_redis.SentinelTransport):
    """The transport for `sentinel://` URLs in workers."""

    Channel = SentinelChannel


def _decodable(raw: bytes, where: bytes) -> bytes | None:
    """Returns a message of another app's queue or of a topic if kombu can decode it; else it is a dead letter."""
    try:
        loads(raw)
    except Exception as error:  # noqa: BLE001 - kombu's JSON builds objects, which may raise anything
        _store_dead_letter(f"not a message: {error}", where.decode(errors="replace"), raw)
        return None
    return raw


def _is_envelope(message: Any) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("properties"), dict):
        return False
    properties = message["properties"]
    return (
        "body" in message
        and isinstance(message.get("headers") or {}, dict)
        and isinstance(properties.get("delivery_tag"), (int, str))
        and isinstance(properties.get("delivery_info"), dict)
    )


def _store_dead_letter(reason: str, queue: str, raw: bytes) -> None:
    from lowtide_worker.runtime import runtime  # deferred: importing the transport must stay cheap

    runtime().oddities.keep_message(reason, queue, raw)
