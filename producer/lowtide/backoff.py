"""`Backoff`: the pauses between tries."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Pauses that grow exponentially, with jitter so that many clients do not try at the same moment.

    - `first`: the first pause, in seconds.
    - `cap`: the longest pause before jitter, in seconds.
    - `factor`: the growth from one pause to the next.
    - `jitter`: the largest random change of a pause, as a share of it.
    """

    first: float
    cap: float
    factor: float = 2.0
    jitter: float = 0.1

    def seconds(self, tries: int) -> float:
        """Returns the pause after `tries` (0, 1, ...) earlier tries, in seconds."""
        # The exponent is bounded: a job that is polled for days must not overflow a float.
        pause = min(self.first * self.factor ** min(tries, 64), self.cap)
        return pause * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 - spreads load, guards nothing
