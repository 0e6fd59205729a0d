"""The Celery handler: sends one message a segment to a task of the user's own app, where its workers listen."""

from __future__ import annotations

from urllib.parse import urldefrag

import redis
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError

from lowtide.handlers import CeleryHandler
from lowtide.listeners import elsewhere, listeners, silence
from lowtide.messages import VERSION, sender
from lowtide_worker.handlers import HandlerFailed, NobodyListens, Segment
from lowtide_worker.settings import WorkerSettings


class CeleryTaskHandler:
    """Hands segments to the task that `lowtide.result_handler` makes."""

    def __init__(self, settings: WorkerSettings, target: CeleryHandler, client: redis.Redis) -> None:
        # Where nobody waits for its word, what the broker took counts as taken.
        self.answers = settings.handler_patience_seconds > 0
        self._target = target
        self._listens_as = target.task if target.broker is None else elsewhere(target.task)
        self._redis = client
        self._named = target.queue
        self._otherwise = settings.handler_queue
        if target.broker is None:
            self._url: str | None = settings.redis_url.get_secret_value()
        elif target.broker in settings.brokers:
            self._url, queue = urldefrag(settings.brokers[target.broker].get_secret_value())
            self._named = self._named or queue or None
        else:
            self._url = None

    def hand_over(self, segment: Segment) -> str:
        """Publishes the message; the broker has it when this returns the queue."""
        if self._url is None:
            raise HandlerFailed(f"no broker {self._target.broker!r}: name it in LOWTIDE_BROKERS of the workers")
        queue = self._queue()
        message = {"v": VERSION, **segment._asdict()}
        try:
            sender(self._url).send_task(self._target.task, kwargs=message, queue=queue)
        except (BrokerError, KombuError, OSError) as error:
            raise HandlerFailed(f"{type(error).__name__}: {error}") from error
        return queue

    def _queue(self) -> str:
        """The queue that was named, or where its workers listen. Raises `NobodyListens`."""
        if self._named is not None:
            return self._named
        [found] = listeners(self._redis, [self._listens_as])
        if found and found[0].fresh:
            return found[0].queue
        if self._otherwise is not None:
            return self._otherwise
        raise NobodyListens(self._listens_as, silence(str(self._target), found))
