"""The task that `result_handler` makes, as its author meets it: in a unit test, and by its options."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded, WorkerShutdown, WorkerTerminate

from lowtide import Result, ResultsFailed, ResultStatus, result_handler
from lowtide.addresses import handler_name
from lowtide.handling.attempts import described, ends_the_worker

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


def test_a_batched_function_is_called_with_a_list_in_a_test(app: Celery) -> None:
    @result_handler(app, name="shop.save", batched=True)
    def save(results: list[Result]) -> list[str]:
        return [result.key for result in results]

    assert save([RESULT, RESULT]) == ["kettle", "kettle"]


def test_the_task_itself_names_the_handler_of_a_batch(app: Celery) -> None:
    @result_handler(app, name="shop.save")
    def save(result: Result) -> None:
        """Takes a result."""

    @app.task(name="shop.plain", shared=False)
    def plain() -> None:
        """Takes anything."""

    assert (handler_name(save), handler_name(plain)) == ("shop.save", "shop.plain")


def test_a_coroutine_function_is_refused_because_celery_would_never_run_it(app: Celery) -> None:
    async def save(result: Result) -> None:
        """Takes a result."""

    with pytest.raises(TypeError, match=r"save is a coroutine function.*asyncio.run"):
        result_handler(app)(save)


def test_the_decorator_without_an_app_says_how_to_write_it() -> None:
    def save(result: Result) -> None:
        """Takes a result."""

    given: Any = save
    with pytest.raises(TypeError, match=r"give your Celery app: @result_handler\(app\)"):
        result_handler(given)


def test_an_error_whose_text_raises_is_still_described() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    assert described(Odd()) == "Odd: (its text cannot be read)"
    assert len(described(ValueError("x" * 5000))) == 1000


def test_failed_results_are_an_expected_error_of_the_task_beside_the_users_own(app: Celery) -> None:
    @result_handler(app, throws=(LookupError,))
    def save(result: Result) -> None:
        """Takes a result."""

    assert save.throws == (LookupError, ResultsFailed)


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
    assert ends_the_worker(error) is ends


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
