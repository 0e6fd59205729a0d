"""Deadlines by a clock that also runs while the process is frozen or the machine is suspended."""

from __future__ import annotations

import time
from collections.abc import Callable


def _clock() -> Callable[[], float]:
    # Linux's monotonic clock stops while the machine is suspended; the provider's clock does not.
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if boot is None else lambda: time.clock_gettime(boot)


elapsed = _clock()
"""Returns the seconds since a fixed moment in the past. Only differences between two values are meaningful."""


class Overdue(TimeoutError):
    """A deadline has passed."""


class Deadline:
    """A moment in the future, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self._at = elapsed() + seconds

    def left(self, more: float = 0.0) -> float:
        """Returns the seconds until the deadline, which `more` puts off by so many seconds.

        Raises `Overdue` once it has passed.
        """
        left = self._at + more - elapsed()
        if left <= 0:
            raise Overdue("timed out")
        return left
