"""Celery's events for Flower and other monitors, sent without a wait for Redis.

Celery 5.7.0 sends a worker's heartbeat with retries that never end, from the worker's event loop. A worker whose
heartbeat is due in the moment in which Redis goes away would log nothing and ignore SIGTERM until Redis is back.
`tests/unit/test_monitoring.py` tests this.
"""

from __future__ import annotations

from typing import Any

from celery.app.events import Events as CeleryEvents
from celery.events.dispatcher import EventDispatcher


class Dispatcher(EventDispatcher):
    """A dispatcher that keeps an event that cannot be sent until the worker is connected again."""

    def send(self, type: str, *args: Any, retry: bool = False, **fields: Any) -> Any:  # noqa: A002, ARG002 - Celery's signature
        """Sends an event, with one attempt."""
        return super().send(type, *args, retry=False, **fields)


class Events(CeleryEvents):
    """The events of the application, with this module's dispatcher."""

    dispatcher_cls = f"{__name__}:Dispatcher"
