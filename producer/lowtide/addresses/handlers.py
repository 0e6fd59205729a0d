"""The targets of results and batch events: how `on_result`, `on_finished` and `on_progress` name a handler.

Each is one of

- `shop.tasks.save_blurb`: a Celery task of the user's own app, on Lowtide's broker, on the queue of its workers,
- `shop.tasks.save_blurb@orders`: the same on the queue `orders`, with or without registered workers,
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
"""Excludes keys of Lowtide, kombu and Celery: a message under such a key would make it unreadable."""
_STREAM = re.compile(r"[A-Za-z0-9_.:-]{1,100}", re.ASCII)


class CeleryTarget(NamedTuple):
    """A Celery task that receives one message a segment or batch event, by reference."""

    task: str
    broker: str | None
    """A name in the workers' `LOWTIDE_BROKERS`; None for Lowtide's own broker."""
    queue: str | None = None
    """The queue that the user named; None for the queue on which the task's workers listen."""

    def __str__(self) -> str:
        """The task as its workers register it: without a queue."""
        return self.task if self.broker is None else f"{self.broker}:{self.task}"


class WebhookTarget(NamedTuple):
    """A URL that receives one signed POST a segment, with the results themselves, or a batch event."""

    endpoint: Endpoint


class StreamTarget(NamedTuple):
    """A Redis stream that receives one entry a segment, by reference into the spool, or a batch event."""

    name: str


Target = CeleryTarget | WebhookTarget | StreamTarget
"""The kinds of target that an `on_result` can name."""


class NamedTask(Protocol):
    """A Celery task, as `result_handler` makes it; only its name is used here."""

    @property
    def name(self) -> str | None:
        """The name of the task in its app."""


def listened_for(on_result: str | None) -> str | None:
    """The Celery task whose workers decide on the queue of a batch's results; None for any other target."""
    try:
        target = parse_handler(on_result) if on_result else None
    except InvalidBatch:
        return None
    if isinstance(target, CeleryTarget) and target.broker is None and target.queue is None:
        return target.task
    return None


def handler_name(handler: str | NamedTask, option: str = "on_result") -> str:
    """The name of a handler, as a batch stores it. Raises `InvalidBatch` for an object without a name."""
    name = handler if isinstance(handler, str) else getattr(handler, "name", None)
    if not isinstance(name, str):
        raise InvalidBatch(
            f"{option}: {getattr(handler, '__name__', type(handler).__name__)} is not a handler: "
            f"give its name, or a task that {'result' if option == 'on_result' else 'batch'}_handler made"
        )
    return name


def parse_handler(spec: str, option: str = "on_result") -> Target:
    """Parses the value of an option. Raises `InvalidBatch` if it names no target."""
    scheme, separator, rest = spec.partition("://")
    if separator:
        match scheme.lower():
            case "http" | "https":
                return _parse_webhook(spec, option)
            case "stream":
                return _parse_stream(rest, option)
            case _:
                raise InvalidBatch(
                    f"{option}: unknown handler scheme {scheme!r}; there are Celery tasks ('shop.tasks.save_blurb' "
                    "or 'shop-broker:shop.tasks.save_blurb'), webhooks ('https://shop.example/hooks/results') and "
                    "Redis streams ('stream://blurbs')"
                )
    return _parse_task(spec, option)


def _parse_webhook(spec: str, option: str) -> WebhookTarget:
    try:
        return WebhookTarget(parse_endpoint(spec))
    except ValueError as error:
        raise InvalidBatch(f"{option}: {error}") from None


def _parse_stream(name: str, option: str) -> StreamTarget:
    if not _STREAM.fullmatch(name):
        raise InvalidBatch(f"{option}: {name!r} is not the name of a stream (1 to 100 of A-Z a-z 0-9 _ . : -)")
    return StreamTarget(name)


def _parse_task(spec: str, option: str) -> CeleryTarget:
    name, at, queue = spec.partition("@")
    broker, colon, task = name.rpartition(":")
    if not _TASK.fullmatch(task) or (colon and not _BROKER.fullmatch(broker)):
        raise InvalidBatch(f"{option}: {spec!r} is not the name of a Celery task ('[broker:]package.task[@queue]')")
    if at and not _QUEUE.fullmatch(queue):
        raise InvalidBatch(
            f"{option}: {queue!r} is not the name of a handler's queue (1 to 100 of A-Z a-z 0-9 _ . : -; the "
            "names that Lowtide, kombu and Celery use for themselves are refused)"
        )
    return CeleryTarget(task, broker or None, queue or None)
