"""Where results go: how a handler is named.

`on_result` is one of

- `shop.tasks.save_blurb`: a Celery task of the user's own app, on Lowtide's broker, where its workers listen,
- `shop.tasks.save_blurb@orders`: the same on the queue `orders`, whoever listens there,
- `shop-broker:shop.tasks.save_blurb`: on a broker that the workers' settings name (a queue may follow here too),
- `https://shop.example/hooks/results`: a signed webhook that the workers' settings allow,
- `stream://blurbs`: a Redis stream beside Lowtide's own keys.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from lowtide.addresses.endpoint import Endpoint, parse_endpoint
from lowtide.errors import InvalidBatch

_TASK = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_BROKER = re.compile(r"[A-Za-z][A-Za-z0-9_-]*", re.ASCII)
_QUEUE = re.compile(
    r"(?!lowtide[.:]|_kombu\.|unacked(_index|_mutex)?\Z|.*\.pidbox\Z)[A-Za-z0-9_.:-]{1,100}",
    re.ASCII,
)
"""Without the keys of Lowtide's, kombu's and Celery's own: a message there would make them unreadable."""
_STREAM = re.compile(r"[A-Za-z0-9_.:-]{1,100}", re.ASCII)


class CeleryTarget(NamedTuple):
    """A Celery task that takes segments of results."""

    task: str
    broker: str | None
    """A name out of the workers' `LOWTIDE_BROKERS`; None for Lowtide's own broker."""
    queue: str | None = None
    """The queue that the user named; None where it is the one that the handler's workers listen on."""

    def __str__(self) -> str:
        """The handler as its workers register it: without a queue."""
        return self.task if self.broker is None else f"{self.broker}:{self.task}"


class WebhookTarget(NamedTuple):
    """A URL that gets one signed POST a segment, with the results themselves."""

    endpoint: Endpoint


class StreamTarget(NamedTuple):
    """A Redis stream that gets one entry a segment, by reference into the spool."""

    name: str


Target = CeleryTarget | WebhookTarget | StreamTarget
"""What an `on_result` can name."""


class NamedTask(Protocol):
    """A Celery task, as `result_handler` makes it: of interest here is its name alone."""

    @property
    def name(self) -> str | None:
        """The name under which its app knows it."""


def listened_for(on_result: str | None) -> str | None:
    """The Celery task whose workers decide where a batch's results go; None where something else does, or nothing."""
    try:
        handler = parse_handler(on_result) if on_result else None
    except InvalidBatch:
        return None
    if isinstance(handler, CeleryTarget) and handler.broker is None and handler.queue is None:
        return handler.task
    return None


def handler_name(handler: str | NamedTask) -> str:
    """The `on_result` that a batch keeps. Raises `InvalidBatch` for what names no handler."""
    name = handler if isinstance(handler, str) else getattr(handler, "name", None)
    if not isinstance(name, str):
        raise InvalidBatch(
            f"on_result: {getattr(handler, '__name__', type(handler).__name__)} is neither the name of a handler nor "
            "a task that result_handler made"
        )
    return name


def parse_handler(spec: str) -> Target:
    """Reads an `on_result`. Raises `InvalidBatch` for what is not a handler."""
    scheme, separator, rest = spec.partition("://")
    if separator:
        match scheme.lower():
            case "http" | "https":
                return _parse_webhook(spec)
            case "stream":
                return _parse_stream(rest)
            case _:
                raise InvalidBatch(
                    f"on_result: unknown handler scheme {scheme!r}; there are Celery tasks ('shop.tasks.save_blurb' "
                    "or 'shop-broker:shop.tasks.save_blurb'), webhooks ('https://shop.example/hooks/results') and "
                    "Redis streams ('stream://blurbs')"
                )
    return _parse_task(spec)


def _parse_webhook(spec: str) -> WebhookTarget:
    try:
        return WebhookTarget(parse_endpoint(spec))
    except ValueError as error:
        raise InvalidBatch(f"on_result: {error}") from None


def _parse_stream(name: str) -> StreamTarget:
    if not _STREAM.fullmatch(name):
        raise InvalidBatch(f"on_result: {name!r} is not the name of a stream (1 to 100 of A-Z a-z 0-9 _ . : -)")
    return StreamTarget(name)


def _parse_task(spec: str) -> CeleryTarget:
    name, at, queue = spec.partition("@")
    broker, colon, task = name.rpartition(":")
    if not _TASK.fullmatch(task) or (colon and not _BROKER.fullmatch(broker)):
        raise InvalidBatch(f"on_result: {spec!r} is not the name of a Celery task ('[broker:]package.task[@queue]')")
    if at and not _QUEUE.fullmatch(queue):
        raise InvalidBatch(
            f"on_result: {queue!r} is not the name of a handler's queue (1 to 100 of A-Z a-z 0-9 _ . : -; "
            "those of lowtide, kombu and Celery are their own)"
        )
    return CeleryTarget(task, broker or None, queue or None)
