"""Celery's consumer, keeping what it cannot handle in the dead letters instead of only logging it."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

from lowtide import LowtideError
from lowtide_worker.runtime import runtime

log = logging.getLogger(__name__)

_KEPT_CHARS = 2000


class Consumer(CeleryConsumer):
    """The consumer to name in `worker_consumer`."""

    def connection_for_read(self, heartbeat: Any = None) -> Any:
        """The broker connection, from which nothing is taken where this worker must not run: then it ends."""
        connection = super().connection_for_read(heartbeat=heartbeat)
        try:
            runtime().check_surroundings()
        except LowtideError as error:
            log.critical("this worker ends: %s", error)
            raise SystemExit(1) from None
        except Exception:
            connection.close()
            raise
        return connection

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """A message that is no task."""
        _bury("not a task message", message)
        super().on_unknown_message(body, message)

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """A task that is not registered here."""
        _bury(f"unknown task {exc}", message)
        super().on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """A task message that lacks what it must have, or is serialised otherwise than as JSON."""
        _bury(f"invalid task message: {exc}", message)
        super().on_invalid_task(body, message, exc)

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        """A message whose body cannot be read."""
        _bury(f"undecodable message: {exc}", message)
        super().on_decode_error(message, exc)


def _bury(reason: str, message: Any) -> None:
    headers = message.headers if isinstance(message.headers, dict) else {}
    runtime().ledger.dead_letter(
        reason[:_KEPT_CHARS],
        {
            "task": headers.get("task"),
            "id": headers.get("id"),
            "content_type": message.content_type,
            "body": repr(message.body)[:_KEPT_CHARS],
        },
    )
