"""`result_handler`: makes a user's function into the Celery task that receives results."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lowtide.handling.attempts import Consumer, Message, take
from lowtide.handling.tasks import HandlerKind, HandlerTask, handler_task

if TYPE_CHECKING:
    from celery import Celery, Task

    from lowtide.settings import Settings
    from lowtide.store import DeliveryClient

_KIND = HandlerKind("result_handler", "on_result", takes="a lowtide.Result", message=Message, argument="results")


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

    def receive(task: HandlerTask, client: DeliveryClient, message: Message) -> dict[str, int]:
        return take(Consumer(task.name, task.call, batched, task.beat), client, message)

    return handler_task(app, _KIND, receive, name=name, settings=settings, options=options)
