"""The emulated clock: real time plus whatever the tests have added to it.

Nothing in the emulator waits for a moment; every state is computed from the clock when somebody
asks. Moving the clock 48 hours ahead is therefore one addition.
"""

from __future__ import annotations

import threading
import time


class Clock:
    """Seconds since the epoch, able to jump ahead. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ahead = 0.0

    def now(self) -> float:
        """Return the emulated time in seconds since the epoch."""
        return time.time() + self._ahead

    def advance(self, seconds: float) -> float:
        """Move the clock ahead and return the new time; it never goes back."""
        if seconds < 0:
            raise ValueError(f"the clock cannot go back ({seconds} s)")
        with self._lock:
            self._ahead += seconds
        return self.now()

    def reset(self) -> None:
        """Return to real time."""
        with self._lock:
            self._ahead = 0.0
