"""The handlers, which give deliveries to Celery tasks, webhooks and Redis streams."""

from __future__ import annotations

from lowtide_worker.handlers.protocol import Delivery, Handler, HandlerFailed, NoListener

__all__ = [
    "Delivery",
    "Handler",
    "HandlerFailed",
    "NoListener",
]
