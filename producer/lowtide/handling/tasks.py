"""The Celery tasks of handlers: what those that receive results and those that receive batch events have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from lowtide.errors import ResultsFailed
from lowtide.handling.attempts import Received, span_of

if TYPE_CHECKING:
    from celery import Celery, Task

    from lowtide.settings import Settings
    from lowtide.store import DeliveryClient

_WITHOUT_EFFECT = {
    "autoretry_for": "what the function raises for is delivered again anyway",
    "retry_backoff": "LOWTIDE_DELIVERY_RETRY_FIRST_SECONDS and LOWTIDE_DELIVERY_RETRY_MAX_SECONDS decide",
    "retry_kwargs": "LOWTIDE_MAX_DELIVERY_ATTEMPTS of the workers decides",
    "max_retries": "LOWTIDE_MAX_DELIVERY_ATTEMPTS of the workers decides",
    "exchange": "name a queue",
    "routing_key": "name a queue",
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


class HandlerKind(NamedTuple):
    """The kind of a handler's task."""

    decorator: str
    """The name of its decorator."""
    option: str
    """The option of a batch that names such a task."""
    takes: str
    """The argument of the user's function, for people."""
    message: Callable[..., Received]
    """Makes a message of its arguments."""
    argument: str
    """The argument that only its messages have."""


class HandlerTask(NamedTuple):
    """The task of a user's function."""

    name: str
    call: Callable[[Any], object]
    """Calls the user's function."""
    beat: Callable[[], None]
    """Keeps the worker registered."""


Receive = Callable[[HandlerTask, "DeliveryClient", Any], dict[str, int]]
"""Gives the content of a message to the user's function, and reports to Lowtide how that ended."""


def handler_task(
    app: Celery,
    kind: HandlerKind,
    receive: Receive,
    *,
    name: str | None,
    settings: Settings | None,
    options: dict[str, Any],
) -> Callable[[Callable[..., object]], Task]:
    """Returns the decorator that makes a function into a task of this kind: see `result_handler` for the arguments."""
    if not hasattr(app, "task"):
        raise TypeError(f"{kind.decorator}: give your Celery app: @{kind.decorator}(app)")
    for option, remedy in {**_WITHOUT_EFFECT, "pydantic": f"the function takes {kind.takes}"}.items():
        if option in options:
            raise TypeError(f"{kind.decorator}: {option} has no effect here: {remedy}")
    bound = bool(options.pop("bind", False))
    # Kept from Celery, which warns of tasks with a queue. Only Lowtide sends this task, and it knows the queue.
    queue = options.pop("queue", None)

    def decorate(function: Callable[..., object]) -> Task:
        from lowtide.handling.registration import beat_if_due, register_handlers_of  # deferred: Celery

        if inspect.iscoroutinefunction(function):
            raise TypeError(
                f"{kind.decorator}: {function.__name__} is a coroutine function, which Celery does not run: "
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
            if kind.argument not in message:
                _refuse(kind, task_name, client(), message)
            given = kind.message(**message)
            with span_of(task_name, given, app.tasks[task_name].request):
                return receive(HandlerTask(task_name, call, beat_if_due), client(), given)

        handle.__name__, handle.__doc__ = function.__name__, function.__doc__
        handle.__module__ = function.__module__
        # An expected error: the log has the traceback of the function's own error, and needs no second one.
        throws = (*options.pop("throws", ()), ResultsFailed)
        ours = {"lowtide_handler": True, "lowtide_settings": settings, "lowtide_queue": queue, "throws": throws}
        register_handlers_of(app)
        return app.task(name=task_name, **(_DEFAULTS | options | ours))(handle)

    return decorate


def _refuse(kind: HandlerKind, name: str, client: DeliveryClient, message: Mapping[str, Any]) -> NoReturn:
    """Gives back what is meant for the other kind of handler. Raises `ResultsFailed`."""
    problem = f"{name} is named by the wrong option of a batch: {kind.decorator} makes tasks for {kind.option}"
    client.hand_back(message["delivery_id"], only=message.get("only"), attempt=message["attempt"], error=problem)
    raise ResultsFailed(problem)
