"""Celery's Redis transport, mended in two places so that a worker lives on.

1. Celery 5.7.0 closes a lost broker connection twice; the second close restores unacknowledged messages through
   a transport that has no client any more, and the worker exits. Here such messages are left to the visibility
   timeout; the clock brings the work back long before.
2. Something on the queue that is no message at all (not JSON, not an envelope) raises inside the worker's event
   loop. Here it goes to the dead letters.

`tests/integration/test_redis_restart.py` holds the first in place; when it passes without, this can go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from kombu.transport import redis as kombu_redis

log = logging.getLogger(__name__)

_UNREADABLE_KEPT_CHARS = 2000


class QoS(kombu_redis.QoS):
    """Forgets, instead of failing, when the connection is already gone."""

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Restores what was not acknowledged, if there is still a connection to do it over."""
        self._guarded(lambda: super(QoS, self).restore_unacked_once(stderr=stderr))

    def ack(self, delivery_tag: str) -> None:
        """Acknowledges; a lost connection is a connection error, which Celery knows how to take."""
        self._connected(lambda: super(QoS, self).ack(delivery_tag))

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Rejects, likewise."""
        self._connected(lambda: super(QoS, self).reject(delivery_tag, requeue=requeue))

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (AttributeError, OSError, *self.channel.connection_errors) as error:
            log.warning("%d messages are left to the visibility timeout: %s", len(self._delivered), error)
            self._delivered.clear()

    def _connected(self, action: Callable[[], None]) -> None:
        try:
            action()
        except AttributeError as error:
            raise ConnectionResetError(f"the broker connection is gone: {error}") from error


class Channel(kombu_redis.Channel):
    """A channel that reads on after something unreadable."""

    QoS = QoS

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except ValueError as error:
            _bury("not a message", {"problem": str(error)})
            return True


class Transport(kombu_redis.Transport):
    """The transport that stands for `redis://` in workers."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        if not _is_envelope(message):
            _bury("not an envelope", {"queue": queue, "message": repr(message)[:_UNREADABLE_KEPT_CHARS]})
            return
        super()._deliver(message, queue)


def _is_envelope(message: Any) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("properties"), dict):
        return False
    properties = message["properties"]
    return "body" in message and "delivery_tag" in properties and isinstance(properties.get("delivery_info"), dict)


def _bury(reason: str, what: dict[str, object]) -> None:
    from lowtide_worker.runtime import runtime  # deferred: importing the transport must stay cheap

    log.error("broker: %s: %s", reason, what)
    runtime().ledger.dead_letter(reason, what)
