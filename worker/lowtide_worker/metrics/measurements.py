"""The measurements of one process: added up in memory, and added to those of all processes in the store.

One call to Redis a second at most carries everything that a process has measured, so that the stages make no calls of
their own for it. The last second of a process that is killed is lost; the census and the counters of results do not
depend on it.
"""

from __future__ import annotations

import logging
import os
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable

import redis

from lowtide.protocol import Stage, keys
from lowtide.protocol.measures import LATENCY_BOUNDS, counter
from lowtide.store import pairs
from lowtide_worker.events import Event
from lowtide_worker.state import scripts

log = logging.getLogger(__name__)

STAGE = "stage"
"""The histogram of stages, by stage."""
STAGE_FAILURES = "stage_failures"
"""The counters of failed runs of stages, by stage and error."""
CALL = "call"
"""The histogram of calls to providers, by provider and call."""
CALL_ERRORS = "call_errors"
"""The counters of calls that failed, by provider, call and error."""
_FLUSH_SECONDS = 1.0
_BOUNDS = [f"{bound:g}" for bound in LATENCY_BOUNDS]


class Measurements:
    """Counters and histograms of this process, which any thread may add to."""

    def __init__(self, client: Callable[[], redis.Redis]) -> None:
        self._client = client
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._totals: Counter[str] = Counter()
        self._times: Counter[str] = Counter()
        self._is_due = False

    def ran_stage(self, stage: Stage, seconds: float) -> None:
        """Adds the time of one run of a stage."""
        self._add(counter(STAGE, stage), seconds)

    def stage_failed(self, stage: Stage, error: Exception) -> None:
        """Counts a run of a stage that has raised an error."""
        self._add(counter(STAGE_FAILURES, stage, type(error).__name__))

    def called(self, provider: str, call: str, seconds: float, error: Exception | None) -> None:
        """Adds the time of one call to a provider, and the error that it has raised."""
        self._add(counter(CALL, provider, call), seconds)
        if error is not None:
            self._add(counter(CALL_ERRORS, provider, call, type(error).__name__))

    def _add(self, name: str, seconds: float | None = None) -> None:
        if self._pid != os.getpid():
            # A forked child has the parent's memory: the parent reports what is in it.
            self._reset()
        with self._lock:
            if seconds is None:
                self._totals[name] += 1
            else:
                at = bisect_left(LATENCY_BOUNDS, seconds)
                self._times[counter(name, _BOUNDS[at] if at < len(_BOUNDS) else "inf")] += 1
                self._times[counter(name, "sum")] += int(seconds * 1e6)
            if self._is_due:
                return
            self._is_due = True
        timer = threading.Timer(_FLUSH_SECONDS, self.flush)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:
            # No thread can be started: the next measurement tries again, and work goes on.
            self._is_due = False

    def flush(self) -> None:
        """Adds everything that was measured to the store. Where Redis does not serve, it is lost."""
        if self._pid != os.getpid():
            return
        with self._lock:
            totals, self._totals = self._totals, Counter()
            times, self._times = self._times, Counter()
            self._is_due = False
        if not totals and not times:
            return
        try:
            client = self._client()
            scripts.add_measured.load(client)(
                counters=keys.COUNTERS,
                latencies=keys.LATENCIES,
                totals=pairs(totals.items()),
                times=pairs(times.items()),
            )
        except redis.RedisError as error:
            log.info("measurements of this process are lost: %s", error, extra=Event.METRICS_LOST.extra)
