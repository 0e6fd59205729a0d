"""The pace of a batch, and the remaining time at that pace."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

_FEWEST_STEPS = 6
"""Steps of progress that must be seen before the remaining time is estimated: with fewer, the pace is chance."""
_MOST_STEPS = 30
_LONGEST_PAUSES = 2.0
"""How much longer than the longest pause between two steps a pause may be, before there is no pace any more."""
_SHORTEST_SECONDS = 10.0


class Pace:
    """The steps in which the number of answered requests grew while it was watched.

    Providers report progress in jumps, some of them only at a job's end. So there is an estimate only after several
    steps, and none while progress pauses.
    """

    def __init__(self) -> None:
        self._answered: int | None = None
        self._steps: deque[tuple[float, int]] = deque(maxlen=_MOST_STEPS)

    def note(self, answered: int, moment: float) -> None:
        """Notes the number of answered requests at a moment, in seconds of any clock that only goes on."""
        if self._answered is not None and answered > self._answered:
            self._steps.append((moment, answered))
        elif self._answered is not None and answered < self._answered:
            # A job was lost with the answers that it had.
            self._steps.clear()
        self._answered = answered

    def left(self, total: int, moment: float) -> float | None:
        """Returns the remaining time in seconds, or None where no estimate would be honest."""
        if len(self._steps) < _FEWEST_STEPS:
            return None
        times = [time for time, _ in self._steps]
        (first, before), (last, answered) = self._steps[0], self._steps[-1]
        longest = max(later - earlier for earlier, later in pairwise(times))
        if last == first or moment - last > longest * _LONGEST_PAUSES:
            return None
        left = (total - answered) * (last - first) / (answered - before) - (moment - last)
        return left if left >= _SHORTEST_SECONDS else None
