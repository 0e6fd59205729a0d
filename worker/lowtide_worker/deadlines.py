"""Deadlines, by a clock that neither a frozen process nor a suspended machine stops."""

from __future__ import annotations

import time
from collections.abc import Callable


def _clock() -> Callable[[], float]:
    # Linux's monotonic clock stands still while the machine is suspended, and the provider's does not.
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if boot is None else lambda: time.clock_gettime(boot)


elapsed = _clock()
"""Seconds since some moment in the past; only differences mean anything."""


class Overdue(TimeoutError):
    """A deadline has passed."""


class Deadline:
    """A moment by which something is to be done, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self._at = elapsed() + seconds

    def left(self, more: float = 0.0) -> float:
        """Seconds until then, or `more` seconds later. Raises `Overdue` afterwards."""
        left = self._at + more - elapsed()
        if left <= 0:
            raise Overdue("timed out")
        return left
