"""`result_handler`: makes a user's function into the Celery task that receives results."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from lowtide.errors import ResultsFailed
from lowtide.handling.attempts import Consumer, Message, span_of, take

if TYPE_CHECKING:
    from celery import Celery, Task

    from lowtide.settings import Settings
    from lowtide.store import DeliveryClient

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


def result_handler(
    app: Celery,
    *,
    name: str | None = None,
    batched: bool = False,
    settings: Settings | None = None,
    **options: Any,
) -> Callable[[Callable[..., object]], Task]:
    """Makes a function that takes a `Result` into a Celery task that a batch's `on_result` can name.

        app = Celery("shop", broker="redis://localhost:6379/0")

        @result_handler(app, name="shop.save")
        def save(result: Result) -> None:
            table.upsert((result.batch_id, result.key), result.text)

        queue.submit(requests, model="gemini-3.5-flash", on_result=save)

    The task receives one segment at a time: the results of up to `LOWTIDE_SEGMENT_ROWS` (4,000) rows or about
    `LOWTIDE_SEGMENT_BYTES` (4 MiB), by reference into the spool. It calls the function once for each result. If the
    function raises, the error is logged, and the task goes on with the other results. Then it gives the failed ones
    back to Lowtide and itself fails with `ResultsFailed`, so that Celery and Flower show the failure. Lowtide delivers
    the failed results again after a growing pause, at most `LOWTIDE_MAX_DELIVERY_ATTEMPTS` times (a setting of its
    workers), and then parks them as a dead letter.

    With `batched=True` the function takes a list of results instead, and is called once for a segment: for a bulk
    insert. If it raises, none of the list counts as taken, and the same list comes again.

    Delivery is at least once: a segment whose message or worker is lost is delivered again. Make the function
    idempotent, by `result.batch_id` and `result.key`.

    The workers of `app` register the queue from which they take the task: the option `queue`, or else the queue
    that the app's routes give, or else its default queue. In a unit test, `save(result)` calls the plain function,
    which returns and raises as it is written.

    - `app`: your Celery application.
    - `name`: the name of the task, as `on_result` has it. Default: module and name of the function.
    - `batched`: whether the function takes a list of results. Default: it takes one result.
    - `settings`: the address of Redis and spool. Default: read from `LOWTIDE_*` at the first delivery.
    - `options`: options of Celery's `app.task`, such as `queue`, `bind` or `time_limit` (seconds for one segment).
      With `bind=True` the function receives the task before the result.

    Returns a decorator, which returns the task. Raises `TypeError` for an option that has no effect here, such as
    `max_retries`, and for a coroutine function, which Celery does not run.
    """
    if not hasattr(app, "task"):
        raise TypeError("result_handler: give your Celery app: @result_handler(app)")
    for option in options:
        if option in _WITHOUT_EFFECT:
            raise TypeError(f"result_handler: {option} has no effect here: {_WITHOUT_EFFECT[option]}")
    bound = bool(options.pop("bind", False))
    # Kept from Celery, which warns of tasks with a queue. Only Lowtide sends this task, and it knows the queue.
    queue = options.pop("queue", None)

    def decorate(function: Callable[..., object]) -> Task:
        from lowtide.handling.registration import beat_if_due, register_handlers_of  # deferred: Celery

        if inspect.iscoroutinefunction(function):
            raise TypeError(
                f"result_handler: {function.__name__} is a coroutine function, which Celery does not run: "
                "write `def`, and call asyncio.run inside"
            )
        task_name = name or f"{function.__module__}.{function.__qualname__}"

        def call(given: object) -> object:
            return function(app.tasks[task_name], given) if bound else function(given)

        @cache
        def client() -> DeliveryClient:
            from lowtide.settings import Settings
            from lowtide.store import DeliveryClient  # deferred: only a consumer needs spool and Redis

            return DeliveryClient(settings or Settings())

        def handle(*called: object, **message: Any) -> object:
            if called:
                return call(*called)
            given = Message(**message)
            with span_of(task_name, given, app.tasks[task_name].request):
                return take(Consumer(task_name, call, batched, beat_if_due), client(), given)

        handle.__name__, handle.__doc__ = function.__name__, function.__doc__
        handle.__module__ = function.__module__
        # An expected error: the log has the traceback of the function's own error, and needs no second one.
        throws = (*options.pop("throws", ()), ResultsFailed)
        ours = {"lowtide_handler": True, "lowtide_settings": settings, "lowtide_queue": queue, "throws": throws}
        register_handlers_of(app)
        return app.task(name=task_name, **(_DEFAULTS | options | ours))(handle)

    return decorate
