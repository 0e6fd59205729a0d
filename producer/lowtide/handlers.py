"""Where results go: how a handler is named, and the decorator that makes one.

`on_result` is one of

- `shop.tasks.save_blurb`: a Celery task of the user's own app, on Lowtide's broker,
- `shop-broker:shop.tasks.save_blurb`: the same on a broker that the workers' settings name,
- `https://shop.example/hooks/results`: a signed webhook that the workers' settings allow,
- `stream://blurbs`: a Redis stream beside Lowtide's own keys.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from lowtide.endpoint import Endpoint, parse_endpoint
from lowtide.errors import InvalidBatch, SpoolError, StoreUnavailable
from lowtide.models import Result, read_result

if TYPE_CHECKING:
    from celery import Celery, Task

    from lowtide.delivery import Delivery
    from lowtide.settings import Settings

log = logging.getLogger(__name__)

_TASK = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_BROKER = re.compile(r"[A-Za-z][A-Za-z0-9_-]*", re.ASCII)
_STREAM = re.compile(r"[A-Za-z0-9_.:-]{1,100}", re.ASCII)


class CeleryHandler(NamedTuple):
    """A Celery task that takes segments of results."""

    task: str
    broker: str | None
    """A name out of the workers' `LOWTIDE_BROKERS`; None for Lowtide's own broker."""


class WebhookHandler(NamedTuple):
    """A URL that gets one signed POST a segment, with the results themselves."""

    endpoint: Endpoint


class StreamHandler(NamedTuple):
    """A Redis stream that gets one entry a segment, by reference into the spool."""

    name: str


HandlerSpec = CeleryHandler | WebhookHandler | StreamHandler
"""What an `on_result` can name."""


def parse_handler(spec: str) -> HandlerSpec:
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


def _parse_webhook(spec: str) -> WebhookHandler:
    try:
        return WebhookHandler(parse_endpoint(spec))
    except ValueError as error:
        raise InvalidBatch(f"on_result: {error}") from None


def _parse_stream(name: str) -> StreamHandler:
    if not _STREAM.fullmatch(name):
        raise InvalidBatch(f"on_result: {name!r} is not the name of a stream (1 to 100 of A-Z a-z 0-9 _ . : -)")
    return StreamHandler(name)


def _parse_task(spec: str) -> CeleryHandler:
    broker, colon, task = spec.rpartition(":")
    if not _TASK.fullmatch(task) or (colon and not _BROKER.fullmatch(broker)):
        raise InvalidBatch(f"on_result: {spec!r} is not the name of a Celery task ('[broker:]package.task')")
    return CeleryHandler(task, broker or None)


def result_handler(
    app: Celery, *, name: str | None = None, settings: Settings | None = None, **options: Any
) -> Callable[[Callable[[Result], object]], Task]:
    """Makes a function that takes one `Result` into the Celery task that a batch's `on_result` names.

    The task takes one segment (up to 2,000 results, by reference into the spool) and calls the function
    once per result. A call that raises does not disturb the others: the failed ones alone are handed back
    to Lowtide, which delivers them again, later and later, up to its `LOWTIDE_MAX_DELIVERY_ATTEMPTS`.
    What it neither takes nor hands back, because its message or worker was lost, comes again too. Delivery is at
    least once: make the function idempotent, by `result.key`.

    `app` is your Celery app, `name` the task's name (default: module and function), `settings` where spool
    and Redis are (default: from `LOWTIDE_*`), `options` anything Celery's `task` takes.
    """

    def decorate(function: Callable[[Result], object]) -> Task:
        task_name = name or f"{function.__module__}.{function.__qualname__}"

        @cache
        def configured() -> Delivery:
            from lowtide.delivery import Delivery  # deferred: only a consumer needs spool and Redis
            from lowtide.settings import Settings

            return Delivery(settings or Settings())

        def handle(
            *, v: int, batch_id: str, delivery_id: str, results: str, attempt: int = 1,
            only: list[int] | None = None,
        ) -> dict[str, int]:  # fmt: skip
            from celery.exceptions import Reject

            del v
            delivery = configured()
            wanted = None if only is None else set(only)
            done, failed, problem = 0, [], ""
            try:
                try:
                    for position, line in enumerate(delivery.lines(batch_id, results)):
                        if wanted is not None and position not in wanted:
                            continue
                        result = read_result(line)
                        try:
                            function(result)
                            done += 1
                        except Exception as error:  # noqa: BLE001 - a user's function may raise anything
                            problem = f"{type(error).__name__}: {error}"
                            log.warning("%s failed for %r of %s: %s", task_name, result.key, batch_id, problem)
                            failed.append(position)
                except SpoolError as error:
                    delivery.hand_back(delivery_id, only=only, attempt=attempt, error=str(error))
                    return {"done": done, "failed": -1}
                if failed:
                    delivery.hand_back(delivery_id, only=failed, attempt=attempt, error=problem)
                else:
                    delivery.taken(delivery_id)
            except StoreUnavailable as error:
                # Nobody knows of the end yet: the message must come again.
                raise Reject(str(error), requeue=True) from error
            return {"done": done, "failed": len(failed)}

        handle.__name__, handle.__doc__ = function.__name__, function.__doc__
        handle.__module__ = function.__module__
        defaults: dict[str, Any] = {
            "acks_late": True, "reject_on_worker_lost": True, "ignore_result": True, "serializer": "json",
        }  # fmt: skip
        return app.task(name=task_name, **(defaults | options))(handle)

    return decorate
