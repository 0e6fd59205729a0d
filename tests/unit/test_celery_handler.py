"""The task that `result_handler` makes, as its author meets it: in a unit test, and by its options."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded, WorkerShutdown, WorkerTerminate

from lowtide import Result, ResultStatus, result_handler
from lowtide.handling.celery_handler import _ends_the_worker

RESULT = Result(key="kettle", status=ResultStatus.SUCCEEDED)


@pytest.fixture
def app() -> Celery:
    return Celery("shop", broker="memory://", set_as_current=False)


def test_the_task_is_the_plain_function_where_it_is_called_with_a_result(app: Celery) -> None:
    @result_handler(app, name="shop.save")
    def save(result: Result) -> str:
        """Says what it was given."""
        return result.key

    assert save(RESULT) == "kettle"
    assert (save.name, save.__doc__) == ("shop.save", "Says what it was given.")


def test_what_the_plain_function_raises_reaches_a_test(app: Celery) -> None:
    @result_handler(app)
    def save(result: Result) -> None:
        raise LookupError(result.key)

    with pytest.raises(LookupError, match="kettle"):
        save(RESULT)


def test_a_bound_function_is_given_its_task_first(app: Celery) -> None:
    @result_handler(app, name="shop.save", bind=True, queue="orders")
    def save(task: Any, result: Result) -> tuple[str, str]:
        return task.name, result.key

    assert save(RESULT) == ("shop.save", "kettle")


class Gone(BaseException):
    """An exception as it ends a greenlet."""


Gone.__module__ = "gevent.timeout"


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (SystemExit("bye"), False),
        (SystemExit(), False),
        (SystemExit(1), False),
        (SystemExit(-1), False),
        (BaseException("x"), False),
        (SoftTimeLimitExceeded(), False),
        (ValueError("x"), False),
        (KeyboardInterrupt(), True),
        (WorkerShutdown(0), True),
        (WorkerTerminate(1), True),
        (SystemExit(-(256 - signal.SIGTERM)), True),
        (Gone(), True),
    ],
)
def test_what_is_meant_for_the_worker_is_no_failure_of_the_function(error: BaseException, ends: bool) -> None:
    assert _ends_the_worker(error) is ends


@pytest.mark.parametrize(
    "option", ["autoretry_for", "retry_backoff", "retry_kwargs", "max_retries", "exchange", "routing_key", "pydantic"]
)
def test_an_option_without_effect_is_refused_with_what_does_it_instead(app: Celery, option: str) -> None:
    options: dict[str, Any] = {option: True}
    with pytest.raises(TypeError, match=f"{option} has no effect here: ."):
        result_handler(app, **options)


def test_other_options_of_celerys_are_the_tasks(app: Celery) -> None:
    @result_handler(app, time_limit=60, acks_late=False)
    def save(result: Result) -> None:
        """Takes a result."""

    assert (save.time_limit, save.acks_late, save.reject_on_worker_lost) == (60, False, True)
