"""`batch_handler`: makes a user's function into the Celery task that is notified of a batch's end or progress."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from lowtide.errors import ResultsFailed, StoreUnavailable
from lowtide.handling.attempts import MOST_STARTS, described, ends_the_worker
from lowtide.handling.tasks import HandlerKind, HandlerTask, handler_task
from lowtide.models import BatchStatus

if TYPE_CHECKING:
    from celery import Celery, Task

    from lowtide.settings import Settings
    from lowtide.store import DeliveryClient

log = logging.getLogger(__name__)


class _Message(NamedTuple):
    """The arguments of the message: see "Batch events" in docs/protocol.md."""

    v: int
    batch_id: str
    delivery_id: str
    event: str
    attempt: int = 1


_KIND = HandlerKind(
    "batch_handler",
    "on_finished and on_progress",
    takes="a lowtide.BatchStatus",
    message=_Message,
    argument="event",
)


def batch_handler(
    app: Celery,
    *,
    name: str | None = None,
    settings: Settings | None = None,
    **options: Any,
) -> Callable[[Callable[..., object]], Task]:
    """Makes a function that takes a `BatchStatus` into a Celery task that `on_finished` or `on_progress` can name.

        @batch_handler(app, name="shop.done")
        def done(status: BatchStatus) -> None:
            mail(f"{status.id} is {status.state}: {status.succeeded} of {status.total}")

        queue.submit(requests, model="gemini-3.5-flash", on_finished=done)

    The status is that of the batch at its end, without its jobs; that of progress is the present one. If the function
    raises, Lowtide delivers the end again after a growing pause, at most `LOWTIDE_MAX_DELIVERY_ATTEMPTS` times (a
    setting of its workers), and then parks it as a dead letter. Progress is not delivered again, as newer follows.

    Delivery is at least once, also where the batch is deleted meanwhile. Make the function idempotent, by `status.id`.

    Parameters, errors and the registration of the workers are those of `result_handler`.
    """
    return handler_task(app, _KIND, _take, name=name, settings=settings, options=options)


def _take(task: HandlerTask, client: DeliveryClient, given: _Message) -> dict[str, int]:
    """Gives a batch event to the user's function, and reports to Lowtide how that ended. Raises as `attempts.take`."""
    from celery.exceptions import Reject  # deferred: a quarter of a second that a producer need not pay

    try:
        problem = _offered(task, client, given)
        if problem is None:
            client.taken(given.delivery_id)
            return {"done": 1}
        client.hand_back(given.delivery_id, only=None, attempt=given.attempt, error=problem)
    except StoreUnavailable as error:
        # Lowtide does not know how the delivery ended, so its message must come again.
        raise Reject(str(error), requeue=True) from error
    raise ResultsFailed(f"{given.event} of {given.batch_id} failed in attempt {given.attempt}: {problem}")


def _offered(task: HandlerTask, client: DeliveryClient, message: _Message) -> str | None:
    """Calls the user's function; returns its error, None where there was none."""
    if client.started(message.delivery_id, message.attempt) > MOST_STARTS:
        problem = f"the handler's process ended, or was cut off, {MOST_STARTS} times while it had this event"
        log.error("%s: %s: %s", task.name, message.delivery_id, problem)
        return problem
    status: BatchStatus | None = client.status(message.delivery_id)
    if status is None:
        # A second copy of the message of an event that is over.
        return None
    try:
        task.call(status)
    except BaseException as error:
        if ends_the_worker(error):
            raise
        problem = described(error)
        log.exception("%s failed for %s of %s: %s", task.name, message.event, message.batch_id, problem)
        return problem
    return None
