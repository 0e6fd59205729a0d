"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LONGEST = 180.0
"""For how long a test waits, in seconds: under heavy load a machine is many times slower. Only failures take it all."""
_FIRST_PAUSE = 0.002


def wait_until(
    condition: Callable[[], T | None], *, timeout: float = LONGEST, what: str = "", pause: float = 0.03
) -> T:
    """The first truthy value of `condition`; fails the test when none comes within `timeout` seconds.

    `pause` is the longest one between two looks, in seconds. A look that costs much has a longer one.
    """
    deadline, next_pause = time.monotonic() + timeout, _FIRST_PAUSE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}; last value {value!r}")
        time.sleep(next_pause)
        # What takes long must not be slowed down by the looking.
        next_pause = min(1.5 * next_pause, pause)
