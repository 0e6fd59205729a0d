"""The first answer of a remote service, within a bound.

The clients of object stores and of Google Cloud repeat a call for minutes, which is right in the middle of work. Where
a service has not answered at all, its address is wrong or there is no network, and the user waits for the error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")
SECONDS = 10.0
"""The longest wait."""


class NoAnswer(TimeoutError):
    """A service has not answered. The text says what to check."""


def first_answer(call: Callable[[], T]) -> T:
    """Returns what a call returns, and raises what it raises, and `NoAnswer` after `SECONDS`.

    - `call`: a small call. If it takes too long, it ends unnoticed in a thread of its own, because no client can be
      stopped while it resolves a name or looks for credentials.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where the caller waits
            answer.set_exception(error)

    threading.Thread(target=run, name="lowtide-first-answer", daemon=True).start()
    wait([answer], SECONDS)
    if not answer.done():
        raise NoAnswer(
            f"no answer within {SECONDS:g} seconds; check the network, and the variables that hold the service's "
            "address and credentials"
        )
    return answer.result()
