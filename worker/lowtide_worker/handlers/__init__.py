"""The handlers, which give deliveries to Celery tasks, webhooks and Redis streams."""

from __future__ import annotations

from lowtide_worker.handlers.protocol import BatchEvent, Delivery, Handler, HandlerFailed, NoListener, Resting, Silent

__all__ = [
    "BatchEvent",
    "Delivery",
    "Handler",
    "HandlerFailed",
    "NoListener",
    "Resting",
    "Silent",
]
