"""`result_handler`: makes a user's function into the Celery task that receives results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
    "autoretry_for": "results for which the function raises are delivered again anyway",
    "retry_backoff": "LOWTIDE_DELIVERY_RETRY_FIRST_SECONDS and LOWTIDE_DELIVERY_RETRY_MAX_SECONDS decide",
    "retry_kwargs": "LOWTIDE_MAX_DELIVERY_ATTEMPTS of the workers decides",
    "max_retries": "LOWTIDE_MAX_DELIVERY_ATTEMPTS of the workers decides",
    "exchange": "name a queue",
    "routing_key": "name a queue",
    "pydantic": "the function takes a lowtide.Result",
}
"""Celery's options that have no effect here, each with the thing that decides instead."""
_DEFAULTS: dict[str, Any] = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "ignore_result": True,
    "serializer": "json",
    # A shared task would belong to every other app of the process too, and their workers would register it.
    "shared": False,
}
_MOST_STARTS = 3
"""An attempt that starts more often than this counts as failed: each time, the function has ended the process."""
_GREENLETS = frozenset({"greenlet", "gevent", "eventlet"})


def result_handler(
    app: Celery, *, name: str | None = None, settings: Settings | None = None, **options: Any
) -> Callable[[Callable[..., object]], Task]:
    """Makes a function that takes one `Result` into a Celery task that a batch's `on_result` can name.

        app = Celery("shop", broker="redis://localhost:6379/0")

        @result_handler(app, name="shop.save")
        def save(result: Result) -> None:
            table.upsert(result.key, result.text)

        queue.submit(requests, model="gemini-3.5-flash", on_result=save)

    The task receives one segment at a time: up to 4,000 results, by reference into the spool. It calls the function
    once for each result. If the function raises, the task goes on with the other results and then gives the failed
    ones back to Lowtide. Lowtide delivers those again after a growing pause, at most `LOWTIDE_MAX_DELIVERY_ATTEMPTS`
    times (a setting of its workers), and then parks them as a dead letter.

    Delivery is at least once: a segment whose message or worker is lost is delivered again. Make the function
    idempotent, by `result.key`.

    The workers of `app` register the queue from which they take the task: the option `queue`, or else the queue
    that the app's routes give, or else its default queue. In a unit test, `save(result)` calls the plain function.

    - `app`: your Celery application.
    - `name`: the name of the task, as `on_result` has it. Default: module and name of the function.
    - `settings`: the address of Redis and spool. Default: read from `LOWTIDE_*` at the first delivery.
    - `options`: options of Celery's `app.task`, such as `queue`, `bind` or `time_limit` (seconds for one segment).
      With `bind=True` the function receives the task before the result.

    Returns a decorator, which returns the task. Raises `TypeError` for an option that has no effect here, such as
    `max_retries`.
    """
    for option in options:
        if option in _WITHOUT_EFFECT:
            raise TypeError(f"result_handler: {option} has no effect here: {_WITHOUT_EFFECT[option]}")
    bound = bool(options.pop("bind", False))
    # Kept from Celery, which warns of tasks with a queue. Only Lowtide sends this task, and it knows the queue.
    queue = options.pop("queue", None)

    def decorate(function: Callable[..., object]) -> Task:
        from lowtide.handling.registration import beat_if_due, register_handlers_of  # deferred: Celery

        task_name = name or f"{function.__module__}.{function.__qualname__}"

        def call(result: Result) -> object:
            return function(app.tasks[task_name], result) if bound else function(result)

        @cache
        def client() -> DeliveryClient:
            from lowtide.settings import Settings
            from lowtide.store import DeliveryClient  # deferred: only a consumer needs spool and Redis

            return DeliveryClient(settings or Settings())

        def handle(*called: Result, **message: Any) -> object:
            if called:
                return call(*called)
            return _handle(task_name, call, client(), beat_if_due, **message)

        handle.__name__, handle.__doc__ = function.__name__, function.__doc__
        handle.__module__ = function.__module__
        ours = {"lowtide_handler": True, "lowtide_settings": settings, "lowtide_queue": queue}
        register_handlers_of(app)
        return app.task(name=task_name, **(_DEFAULTS | options | ours))(handle)

    return decorate


@dataclass
class _Outcome:
    """The outcome of one delivery so far."""

    done: int = 0
    failed: list[int] = field(default_factory=list)
    """Line numbers, from 0."""
    problem: str = ""
    """The last error."""


def _handle(
    task_name: str,
    call: Callable[[Result], object],
    client: DeliveryClient,
    beat: Callable[[], None],
    *,
    v: int,
    batch_id: str,
    delivery_id: str,
    results: str,
    attempt: int = 1,
    only: list[int] | None = None,
) -> dict[str, int]:
    """Calls the user's function for each result of a delivery, and reports to Lowtide how that ended.

    The keyword arguments are those of the message. Returns how many calls succeeded and failed, -1 failed for all.
    """
    from celery.exceptions import Reject

    del v
    outcome = _Outcome()
    try:
        if client.started(delivery_id, attempt) > _MOST_STARTS:
            cut_off = f"the handler's process ended, or was cut off, {_MOST_STARTS} times while it had these results"
            log.error("%s: %s: %s", task_name, delivery_id, cut_off)
            client.hand_back(delivery_id, only=only, attempt=attempt, error=cut_off)
            return {"done": 0, "failed": -1}
        try:
            wanted = None if only is None else set(only)
            lines = (
                (position, line)
                for position, line in enumerate(client.lines(batch_id, results))
                if wanted is None or position in wanted
            )
            _call_each(outcome, call, lines, beat, about=(task_name, batch_id))
        except (SpoolError, InstallationMismatch) as error:
            log.warning("%s: the results of %s cannot be read: %s", task_name, delivery_id, error)
            client.hand_back(delivery_id, only=only, attempt=attempt, error=str(error))
            return {"done": outcome.done, "failed": -1}
        if outcome.failed:
            client.hand_back(delivery_id, only=outcome.failed, attempt=attempt, error=outcome.problem)
        else:
            client.taken(delivery_id)
    except StoreUnavailable as error:
        # Lowtide does not know how the delivery ended, so its message must come again.
        raise Reject(str(error), requeue=True) from error
    return {"done": outcome.done, "failed": len(outcome.failed)}


def _call_each(
    outcome: _Outcome,
    call: Callable[[Result], object],
    lines: Iterator[tuple[int, bytes]],
    beat: Callable[[], None],
    *,
    about: tuple[str, str],
) -> None:
    """Calls the user's function for each of some numbered result lines; `about` is the task and the batch."""
    shown: set[type[BaseException]] = set()
    for position, line in lines:
        beat()
        result = read_result(line)
        try:
            call(result)
            outcome.done += 1
        except BaseException as error:
            if _ends_the_worker(error):
                raise
            outcome.problem = f"{type(error).__name__}: {error}"
            task_name, batch_id = about
            # One traceback for each type of error: thousands of equal ones would hide the others.
            log.exception(
                "%s failed for %r of %s: %s",
                task_name,
                result.key,
                batch_id,
                outcome.problem,
                exc_info=type(error) not in shown,
            )
            shown.add(type(error))
            outcome.failed.append(position)


def _ends_the_worker(error: BaseException) -> bool:
    """Whether an exception from the user's function is meant to end the worker, and is no failure of the function."""
    from celery.exceptions import WorkerShutdown, WorkerTerminate

    if isinstance(error, KeyboardInterrupt | WorkerShutdown | WorkerTerminate):
        return True
    if isinstance(error, SystemExit):
        # A signal that ends a child of the prefork pool arrives as the exit code `signal - 256`.
        return isinstance(error.code, int) and -256 < error.code <= -192
    return type(error).__module__.partition(".")[0] in _GREENLETS and not isinstance(error, Exception)
