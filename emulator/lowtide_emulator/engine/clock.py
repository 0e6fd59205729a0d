"""The emulated clock: real time plus what tests have added to it.

Nothing in the emulator waits for a time: every state is computed from the clock at each call. To move the clock 48
hours ahead is therefore one addition.
"""

from __future__ import annotations

import threading
import time

_MOST_SECONDS = 1e9
"""Thirty years: dates have a bound."""


class Clock:
    """Seconds since the epoch, which can jump ahead. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ahead = 0.0

    def now(self) -> float:
        """Returns the emulated time in seconds since the epoch."""
        return time.time() + self._ahead

    def advance(self, seconds: float) -> float:
        """Moves the clock ahead and returns the new time. Raises ValueError for negative seconds, or too many."""
        if not seconds >= 0:
            raise ValueError(f"the clock cannot go back ({seconds} s)")
        with self._lock:
            if self._ahead + seconds > _MOST_SECONDS:
                raise ValueError(f"the clock can be at most {_MOST_SECONDS:,.0f} seconds ahead")
            self._ahead += seconds
        return self.now()

    def reset(self) -> None:
        """Resets the clock to real time."""
        with self._lock:
            self._ahead = 0.0
