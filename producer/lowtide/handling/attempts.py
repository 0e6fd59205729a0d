"""One attempt of a handler at a delivery: reads the results, calls the user's function, and reports how it ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from lowtide import tracing
from lowtide.errors import InstallationMismatch, ResultsFailed, SpoolError, StoreUnavailable
from lowtide.models import Result, read_result
from lowtide.redaction import problem_text
from lowtide.text import counted

if TYPE_CHECKING:
    from lowtide.store import DeliveryClient

log = logging.getLogger(__name__)

MOST_STARTS = 3
"""An attempt that starts more often than this counts as failed: each time, the function has ended the process."""
_GREENLETS = frozenset({"greenlet", "gevent", "eventlet"})


class Message(NamedTuple):
    """The arguments of a handler's message: see "The handler's message" in docs/protocol.md."""

    v: int
    batch_id: str
    delivery_id: str
    results: str
    attempt: int = 1
    only: list[int] | None = None


class Received(Protocol):
    """Arguments that the messages of all handlers have."""

    @property
    def batch_id(self) -> str:
        """The batch, or the bundle."""

    @property
    def delivery_id(self) -> str:
        """The same at every attempt."""

    @property
    def attempt(self) -> int:
        """1 for the first attempt."""


class Consumer(NamedTuple):
    """The user's function, as an attempt calls it."""

    name: str
    """The name of its task, for the log."""
    function: Callable[..., object]
    batched: bool
    """Whether the function takes all results at once, as a list."""
    beat: Callable[[], None]
    """Keeps the worker registered; called between two results."""


class _Outcome(NamedTuple):
    """The end of an attempt."""

    done: int
    """Number of results that were taken."""
    failed: list[int] | None
    """Line numbers of the other results, from 0; None for all results of the file."""
    problem: str
    """The last error."""


def span_of(task_name: str, message: Received, request: object) -> AbstractContextManager[None]:
    """Returns the span of an attempt: it continues the one that an instrumentation of Celery has begun, or the one that
    sent the message.

    `request` is Celery's, with the headers of the message as its attributes.
    """
    about: tracing.Attributes = {
        "lowtide.batch_id": message.batch_id,
        "messaging.message.conversation_id": message.batch_id,
        "messaging.message.id": message.delivery_id,
        "lowtide.delivery_attempt": message.attempt,
    }
    sent = tracing.checked({name: getattr(request, name, None) for name in tracing.HEADERS})
    return tracing.span("handle", task_name, "CONSUMER", about, parent=None if tracing.current() else sent)


def take(consumer: Consumer, client: DeliveryClient, message: Message) -> dict[str, int]:
    """Gives the results of a delivery to the user's function, and reports to Lowtide how that ended.

    Returns the number of results that were taken, for Flower.

    Raises `ResultsFailed` where Lowtide has got results back, so that Celery counts the task as failed, and Celery's
    `Reject` where Lowtide cannot be reached, so that the message comes again.
    """
    from celery.exceptions import Reject  # deferred: a quarter of a second that a producer need not pay

    delivery_id, attempt = message.delivery_id, message.attempt
    try:
        done, failed, problem = _offer(consumer, client, message)
        if failed == []:
            client.taken(delivery_id)
            return {"done": done}
        client.hand_back(delivery_id, only=failed, attempt=attempt, error=problem)
    except StoreUnavailable as error:
        # Lowtide does not know how the delivery ended, so its message must come again.
        raise Reject(str(error), requeue=True) from error
    count = "all" if failed is None else f"{len(failed):,} of {done + len(failed):,}"
    raise ResultsFailed(f"{count} results of delivery {delivery_id} failed in attempt {attempt}: {problem}")


def _offer(consumer: Consumer, client: DeliveryClient, message: Message) -> _Outcome:
    """Calls the user's function with the results of a delivery."""
    delivery_id, only = message.delivery_id, message.only
    if client.started(delivery_id, message.attempt) > MOST_STARTS:
        problem = f"the handler's process ended, or was cut off, {MOST_STARTS} times while it had these results"
        log.error("%s: %s: %s", consumer.name, delivery_id, problem)
        return _Outcome(0, only, problem)
    wanted = None if only is None else set(only)
    try:
        labels = client.labels(message.batch_id)
        results = (
            (number, read_result(line, batch_id=message.batch_id, labels=labels))
            for number, line in enumerate(client.lines(message.batch_id, message.results))
            if wanted is None or number in wanted
        )
        return _all_at_once(consumer, results, only) if consumer.batched else _one_by_one(consumer, results)
    except (SpoolError, InstallationMismatch) as error:
        log.exception("%s: the results of %s cannot be read", consumer.name, delivery_id)
        return _Outcome(0, only, str(error))


def _one_by_one(consumer: Consumer, results: Iterator[tuple[int, Result]]) -> _Outcome:
    """Calls the function once for each result. An error of one does not stop the others."""
    done = 0
    failed: list[int] = []
    problem = ""
    shown: set[type[BaseException]] = set()
    for number, result in results:
        consumer.beat()
        try:
            consumer.function(result)
            done += 1
        except BaseException as error:
            if ends_the_worker(error):
                raise
            failed.append(number)
            problem = described(error)
            # One traceback for each type of error: thousands of equal ones would hide the others.
            new = type(error) not in shown
            shown.add(type(error))
            about = consumer.name, result.key, result.batch_id, problem
            log.exception("%s failed for %r of %s: %s", *about, exc_info=new)
    return _Outcome(done, failed, problem)


def _all_at_once(consumer: Consumer, results: Iterator[tuple[int, Result]], only: list[int] | None) -> _Outcome:
    """Calls the function once with all results. If it raises, none of them counts as taken."""
    batch = [result for _, result in results]
    consumer.beat()
    if not batch:
        return _Outcome(0, [], "")
    try:
        consumer.function(batch)
    except BaseException as error:
        if ends_the_worker(error):
            raise
        problem = described(error)
        about = consumer.name, counted(len(batch), "result"), batch[0].key, batch[0].batch_id, problem
        log.exception("%s failed for %s, the first %r, of %s: %s", *about)
        return _Outcome(0, only, problem)
    return _Outcome(len(batch), [], "")


def described(error: BaseException) -> str:
    """Returns the type and the text of an error of the user's function, whose `__str__` may itself raise."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - its text is not worth the other results
        text = "(its text cannot be read)"
    return problem_text(f"{type(error).__name__}: {text}")


def ends_the_worker(error: BaseException) -> bool:
    """Whether an exception from the user's function is meant to end the worker, and is no failure of the function."""
    from celery.exceptions import WorkerShutdown, WorkerTerminate

    if isinstance(error, KeyboardInterrupt | WorkerShutdown | WorkerTerminate):
        return True
    if isinstance(error, SystemExit):
        # A signal that ends a child of the prefork pool arrives as the exit code `signal - 256`.
        return isinstance(error.code, int) and -256 < error.code <= -192
    return type(error).__module__.partition(".")[0] in _GREENLETS and not isinstance(error, Exception)
