"""The handlers that deliver segments: Celery tasks, webhooks and Redis streams."""

from __future__ import annotations

from lowtide_worker.handlers.listening import Deliveries
from lowtide_worker.handlers.protocol import Delivery, Handler, HandlerFailed, NoListener

__all__ = [
    "Deliveries",
    "Delivery",
    "Handler",
    "HandlerFailed",
    "NoListener",
]
