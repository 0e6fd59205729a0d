"""Where results go: how a handler is named, and the decorator that makes one.

`on_result` names a Celery task of the user's own app, `shop.tasks.save_blurb`, on Lowtide's broker, or
`shop-broker:shop.tasks.save_blurb` on a broker that the workers' settings name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from lowtide.errors import InvalidBatch, SpoolError, StoreUnavailable
from lowtide.models import Result

if TYPE_CHECKING:
    from celery import Celery, Task

    from lowtide.settings import Settings

log = logging.getLogger(__name__)

_TASK = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_BROKER = re.compile(r"[A-Za-z][A-Za-z0-9_-]*", re.ASCII)
_decode_result = msgspec.json.Decoder(Result).decode


class CeleryHandler(NamedTuple):
    """A Celery task that takes segments of results."""

    task: str
    broker: str | None
    """A name out of the workers' `LOWTIDE_BROKERS`; None for Lowtide's own broker."""


def parse_handler(spec: str) -> CeleryHandler:
    """Reads an `on_result`. Raises `InvalidBatch` for what is not a handler."""
    if "://" in spec:
        scheme = spec.partition("://")[0]
        raise InvalidBatch(
            f"on_result: unknown handler scheme {scheme!r}; name a Celery task, as in 'shop.tasks.save_blurb' "
            "or 'shop-broker:shop.tasks.save_blurb'"
        )
    broker, colon, task = spec.rpartition(":")
    if not _TASK.fullmatch(task) or (colon and not _BROKER.fullmatch(broker)):
        raise InvalidBatch(f"on_result: {spec!r} is not the name of a Celery task ('[broker:]package.task')")
    return CeleryHandler(task, broker or None)


def result_handler(
    app: Celery, *, name: str | None = None, settings: Settings | None = None, **options: Any
) -> Callable[[Callable[[Result], object]], Task]:
    """Makes a function that takes one `Result` into the Celery task that a batch's `on_result` names.

    The task takes one segment (up to 1,000 results, by reference into the spool) and calls the function
    once per result. A call that raises does not disturb the others: the failed ones alone are handed back
    to Lowtide, which delivers them again, later and later, up to its `LOWTIDE_MAX_DELIVERY_ATTEMPTS`.
    Delivery is at least once: make the function idempotent, by `result.key`.

    `app` is your Celery app, `name` the task's name (default: module and function), `settings` where spool
    and Redis are (default: from `LOWTIDE_*`), `options` anything Celery's `task` takes.
    """

    def decorate(function: Callable[[Result], object]) -> Task:
        task_name = name or f"{function.__module__}.{function.__qualname__}"

        def handle(
            *, v: int, batch_id: str, delivery_id: str, results: str, attempt: int = 1,
            only: list[int] | None = None,
        ) -> dict[str, int]:  # fmt: skip
            from celery.exceptions import Reject

            from lowtide.delivery import Delivery  # deferred: only a consumer needs spool and Redis here

            del v
            delivery = Delivery.configured(settings)
            wanted = None if only is None else set(only)
            done, failed, problem = 0, [], ""
            try:
                try:
                    for position, line in enumerate(delivery.lines(batch_id, results)):
                        if wanted is not None and position not in wanted:
                            continue
                        result = _decode_result(line)
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
            except StoreUnavailable as error:
                # Nobody knows of the failure yet: the message must come again.
                raise Reject(str(error), requeue=True) from error
            return {"done": done, "failed": len(failed)}

        handle.__name__, handle.__doc__ = function.__name__, function.__doc__
        handle.__module__ = function.__module__
        defaults: dict[str, Any] = {
            "acks_late": True, "reject_on_worker_lost": True, "ignore_result": True, "serializer": "json",
        }  # fmt: skip
        return app.task(name=task_name, **(defaults | options))(handle)

    return decorate
