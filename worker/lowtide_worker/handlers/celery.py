"""The Celery handler: sends one message a delivery to a task of the user's own app, to the queue of its workers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from urllib.parse import urldefrag

import redis
from kombu.connection import Connection
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError

from lowtide.addresses import CeleryTarget, broker_config
from lowtide.handling.registration import is_lowtides
from lowtide.protocol import VERSION, sender
from lowtide.store import elsewhere, listeners, silence
from lowtide.tracing import Headers
from lowtide_worker.handlers.protocol import BatchEvent, Delivery, HandlerFailed, NoListener
from lowtide_worker.settings import WorkerSettings

_NO_ARGUMENTS = frozenset({"labels", "trace"})
"""Labels may be large, so a handler's worker reads them from Redis. The trace travels as headers of the message."""


class CeleryTaskHandler:
    """Sends deliveries to a task, such as `lowtide.result_handler` makes."""

    def __init__(self, settings: WorkerSettings, target: CeleryTarget, client: redis.Redis) -> None:
        # Without patience there is no waiting for an answer: a message that the broker took counts as taken.
        self.answers = settings.handler_patience_seconds > 0
        self._target = target
        self._redis = client
        self._own_url = settings.redis_url.get_secret_value()
        self._named_queue = target.queue
        self._fallback_queue = settings.handler_queue
        if target.broker is None:
            self._url: str | None = self._own_url
        elif target.broker in settings.brokers:
            self._url, queue = urldefrag(settings.brokers[target.broker].get_secret_value())
            self._named_queue = self._named_queue or queue or None
        else:
            self._url = None

    def hand_over(self, delivery: Delivery) -> str:
        """Publishes the message; returns its queue when the broker has it."""
        message = {name: value for name, value in delivery._asdict().items() if name not in _NO_ARGUMENTS}
        return self._send(message, delivery.trace)

    def notify(self, event: BatchEvent) -> str:
        """Publishes the message of a batch event; returns its queue when the broker has it."""
        message = {"batch_id": event.status.id, "delivery_id": event.delivery_id, "event": event.type}
        return self._send({**message, "attempt": event.attempt}, event.trace)

    def _send(self, message: Mapping[str, object], trace: Headers) -> str:
        if self._url is None:
            raise HandlerFailed(f"no broker {self._target.broker!r}: name it in LOWTIDE_BROKERS of the workers")
        queue = self._named_queue or self._queue()
        try:
            app = sender(self._url)
            app.send_task(self._target.task, kwargs={"v": VERSION, **message}, queue=queue, headers=dict(trace))
        except (BrokerError, KombuError, OSError) as error:
            raise HandlerFailed(f"{type(error).__name__}: {error}") from error
        return queue

    @cached_property
    def _listens_as(self) -> str:
        """The name under which the workers of the task register."""
        if self._url is None or self._url == self._own_url:
            return self._target.task
        config = broker_config(self._url)
        with Connection(config["broker_url"], transport_options=config.get("broker_transport_options")) as broker:
            return self._target.task if is_lowtides(broker, self._own_url) else elsewhere(self._target.task)

    def _queue(self) -> str:
        """The queue on which the workers of the task listen. Raises `NoListener`."""
        [found] = listeners(self._redis, [self._listens_as])
        if found and found[0].fresh:
            return found[0].queue
        if self._fallback_queue is not None:
            return self._fallback_queue
        raise NoListener(self._listens_as, silence(str(self._target), found))
