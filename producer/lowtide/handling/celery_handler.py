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

    from lowtide.settings import Settings
    from lowtide.store import DeliveryClient

log = logging.getLogger(__name__)

_WITHOUT_EFFECT = {
    "autoretry_for": "what raised comes again by itself",
    "retry_backoff": "LOWTIDE_DELIVERY_RETRY_FIRST_SECONDS and LOWTIDE_DELIVERY_RETRY_MAX_SECONDS decide",
    "retry_kwargs": "LOWTIDE_MAX_DELIVERY_ATTEMPTS of the workers decides",
    "max_retries": "LOWTIDE_MAX_DELIVERY_ATTEMPTS of the workers decides",
    "exchange": "name a queue",
    "routing_key": "name a queue",
    "pydantic": "the function takes a lowtide.Result",
}
"""Options of Celery's that could do nothing here, and what does it instead."""
_MOST_STARTS = 3
"""An attempt that begins more often, as what it calls ends the process each time, counts as failed."""
_GREENLETS = frozenset({"greenlet", "gevent", "eventlet"})


def result_handler(
    app: Celery, *, name: str | None = None, settings: Settings | None = None, **options: Any
) -> Callable[[Callable[..., object]], Task]:
    """Makes a function that takes one `Result` into the Celery task that a batch's `on_result` names.

    The task takes one segment (up to 4,000 results, by reference into the spool) and calls the function
    once per result. A call that raises does not disturb the others: the failed ones alone are handed back
    to Lowtide, which delivers them again, later and later, up to its `LOWTIDE_MAX_DELIVERY_ATTEMPTS`.
    What it neither takes nor hands back, because its message or worker was lost, comes again too. Delivery is at
    least once: make the function idempotent, by `result.key`.

    The workers of `app` tell Lowtide on which queue they take the task: the one of the option `queue`, or that the
    app's routes name, or its default queue. Called with a `Result`, the task is the plain function, as tests want it.

    `app` is your Celery app, `name` the task's name (default: module and function), `settings` where spool
    and Redis are (default: from `LOWTIDE_*`), `options` what Celery's `task` takes; with `bind=True` the function is
    given the task before the result. Raises `TypeError` for an option that could have no effect.
    """
    for option in options:
        if option in _WITHOUT_EFFECT:
            raise TypeError(f"result_handler: {option} has no effect here: {_WITHOUT_EFFECT[option]}")
    bound = bool(options.pop("bind", False))
    queue = options.pop("queue", None)  # nobody but Lowtide sends the task, and Celery warns of tasks with a queue

    def decorate(function: Callable[..., object]) -> Task:
        from lowtide.handling.registration import beat_if_due, register_handlers_of  # deferred: Celery

        task_name = name or f"{function.__module__}.{function.__qualname__}"

        def call(result: Result) -> object:
            return function(app.tasks[task_name], result) if bound else function(result)

        @cache
        def configured() -> DeliveryClient:
            from lowtide.settings import Settings
            from lowtide.store import DeliveryClient  # deferred: only a consumer needs spool and Redis

            return DeliveryClient(settings or Settings())

        def handle(*called: Result, **message: Any) -> object:
            if called:
                return call(*called)
            return _handle(task_name, call, configured(), beat_if_due, **message)

        handle.__name__, handle.__doc__ = function.__name__, function.__doc__
        handle.__module__ = function.__module__
        defaults: dict[str, Any] = {
            "acks_late": True, "reject_on_worker_lost": True, "ignore_result": True, "serializer": "json",
            # Else every other app of the process would have it too, and its workers would say that they take it.
            "shared": False,
        }  # fmt: skip
        ours = {"lowtide_handler": True, "lowtide_settings": settings, "lowtide_queue": queue}
        register_handlers_of(app)
        return app.task(name=task_name, **(defaults | options | ours))(handle)

    return decorate


def _handle(
    task_name: str,
    call: Callable[[Result], object],
    delivery: DeliveryClient,
    beat: Callable[[], None],
    *,
    v: int,
    batch_id: str,
    delivery_id: str,
    results: str,
    attempt: int = 1,
    only: list[int] | None = None,
) -> dict[str, int]:
    """Takes one segment: calls the user's function for each result, and says what became of them."""
    from celery.exceptions import Reject

    del v
    wanted = None if only is None else set(only)
    done, failed, problem = 0, [], ""
    shown: set[type[BaseException]] = set()
    try:
        if delivery.started(delivery_id, attempt) > _MOST_STARTS:
            cut_off = f"the handler's process ended, or was cut off, {_MOST_STARTS} times while it had these results"
            log.error("%s: %s: %s", task_name, delivery_id, cut_off)
            delivery.hand_back(delivery_id, only=only, attempt=attempt, error=cut_off)
            return {"done": 0, "failed": -1}
        try:
            for position, line in enumerate(delivery.lines(batch_id, results)):
                if wanted is not None and position not in wanted:
                    continue
                beat()
                result = read_result(line)
                try:
                    call(result)
                    done += 1
                except BaseException as error:
                    if _ends_the_worker(error):
                        raise
                    problem = f"{type(error).__name__}: {error}"
                    # A traceback for each kind of error: thousands of the same would bury the others.
                    log.exception(
                        "%s failed for %r of %s: %s",
                        task_name,
                        result.key,
                        batch_id,
                        problem,
                        exc_info=type(error) not in shown,
                    )
                    shown.add(type(error))
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


def _ends_the_worker(error: BaseException) -> bool:
    """Whether what came out of the user's function is meant for the worker, and no failure of the function's."""
    from celery.exceptions import WorkerShutdown, WorkerTerminate

    if isinstance(error, KeyboardInterrupt | WorkerShutdown | WorkerTerminate):
        return True
    if isinstance(error, SystemExit):
        # A signal that ends a child of the prefork pool comes as `256 - signal` below zero.
        return isinstance(error.code, int) and -256 < error.code <= -192
    return type(error).__module__.partition(".")[0] in _GREENLETS and not isinstance(error, Exception)
