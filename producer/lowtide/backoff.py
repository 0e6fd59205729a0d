"""How long to wait before the next try."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential growth from `first` to `cap` seconds, with jitter so that crowds disperse."""

    first: float
    cap: float
    factor: float = 2.0
    jitter: float = 0.1

    def seconds(self, tries: int) -> float:
        """The pause after `tries` (0, 1, ...) earlier ones, in seconds."""
        # Bounded exponent: a job polled for days must not overflow a float.
        pause = min(self.first * self.factor ** min(tries, 64), self.cap)
        return pause * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 - spreads load, guards nothing
