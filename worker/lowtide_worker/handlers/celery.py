"""The Celery handler: sends one message a segment to a task of the user's own app."""

from __future__ import annotations

from urllib.parse import urldefrag

from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError

from lowtide.handlers import CeleryHandler
from lowtide.messages import VERSION, sender
from lowtide_worker.handlers import HandlerFailed, Segment
from lowtide_worker.settings import WorkerSettings


class CeleryTaskHandler:
    """Hands segments to the task that `lowtide.result_handler` makes."""

    def __init__(self, settings: WorkerSettings, target: CeleryHandler) -> None:
        # Where nobody waits for its word, what the broker took counts as taken.
        self.answers = settings.handler_patience_seconds > 0
        self._task = target.task
        self._broker = target.broker
        self._queue = settings.handler_queue
        if target.broker is None:
            self._url: str | None = settings.redis_url.get_secret_value()
        elif target.broker in settings.brokers:
            self._url, queue = urldefrag(settings.brokers[target.broker].get_secret_value())
            self._queue = queue or self._queue
        else:
            self._url = None

    def hand_over(self, segment: Segment) -> None:
        """Publishes the message; the broker has it when this returns."""
        if self._url is None:
            raise HandlerFailed(f"no broker {self._broker!r}: name it in LOWTIDE_BROKERS of the workers")
        message = {"v": VERSION, **segment._asdict()}
        try:
            sender(self._url).send_task(self._task, kwargs=message, queue=self._queue)
        except (BrokerError, KombuError, OSError) as error:
            raise HandlerFailed(f"{type(error).__name__}: {error}") from error
