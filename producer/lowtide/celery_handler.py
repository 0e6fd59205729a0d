"""`result_handler`: makes a function of the user's into the Celery task that is given results."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from lowtide.errors import InstallationMismatch, SpoolError, StoreUnavailable
from lowtide.models import Result, read_result

if TYPE_CHECKING:
    from celery import Celery, Task

    from lowtide.delivery import Delivery
    from lowtide.settings import Settings

log = logging.getLogger(__name__)


def result_handler(
    app: Celery, *, name: str | None = None, settings: Settings | None = None, **options: Any
) -> Callable[[Callable[[Result], object]], Task]:
    """Makes a function that takes one `Result` into the Celery task that a batch's `on_result` names.

    The task takes one segment (up to 4,000 results, by reference into the spool) and calls the function
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
                except (SpoolError, InstallationMismatch) as error:
                    log.warning("%s: the results of %s cannot be read: %s", task_name, delivery_id, error)
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
