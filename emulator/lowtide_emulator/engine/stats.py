"""Counters of what reached the emulator, by call."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter

import msgspec


class StatsSnapshot(msgspec.Struct, frozen=True):
    """The counters at one moment.

    calls: calls by name (``batches.create``, ``files.download``, …), also those that failed.
    replies: HTTP replies by status code; a dropped connection has none.
    bytes_in, bytes_out: bytes of request and response bodies.
    busy_seconds: processor time spent serving and answering; on macOS, answering only.
    answer_seconds: the part of it spent on producing results.
    rows_answered: rows given an answer, with success or not.
    """

    calls: dict[str, int]
    replies: dict[str, int]
    bytes_in: int
    bytes_out: int
    busy_seconds: float
    answer_seconds: float
    rows_answered: int


class Stats:
    """Counts; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serving_clock: int | None = None
        self._serving_base = 0.0
        self._clear()

    def _clear(self) -> None:
        self._calls: Counter[str] = Counter()
        self._replies: Counter[str] = Counter()
        self._bytes_in = 0
        self._bytes_out = 0
        self._answer_seconds = 0.0
        self._rows = 0

    def serve_from_this_thread(self) -> None:
        """Take the processor time of the calling thread as the time spent serving."""
        if sys.platform != "darwin":
            self._serving_clock = time.pthread_getcpuclockid(threading.get_ident())
        self._serving_base = self._serving_seconds()

    def stop_serving(self) -> None:
        """Forget the serving thread, which is about to end."""
        self._serving_clock = None

    def call(self, name: str) -> None:
        """Count one call."""
        with self._lock:
            self._calls[name] += 1

    def reply(self, status: int) -> None:
        """Count one reply."""
        with self._lock:
            self._replies[str(status)] += 1

    def received(self, count: int) -> None:
        """Count bytes of a request body."""
        self._bytes_in += count

    def sent(self, count: int) -> None:
        """Count bytes of a response body."""
        self._bytes_out += count

    def answered(self, rows: int, seconds: float) -> None:
        """Count answered rows and the processor time they took."""
        with self._lock:
            self._rows += rows
            self._answer_seconds += seconds

    def snapshot(self) -> StatsSnapshot:
        """Return the counters as they are now."""
        with self._lock:
            return StatsSnapshot(
                calls=dict(sorted(self._calls.items())),
                replies=dict(sorted(self._replies.items())),
                bytes_in=self._bytes_in,
                bytes_out=self._bytes_out,
                busy_seconds=self._serving_seconds() - self._serving_base + self._answer_seconds,
                answer_seconds=self._answer_seconds,
                rows_answered=self._rows,
            )

    def reset(self) -> None:
        """Start again from zero."""
        with self._lock:
            self._clear()
            self._serving_base = self._serving_seconds()

    def _serving_seconds(self) -> float:
        if self._serving_clock is None:
            return self._serving_base
        return time.clock_gettime(self._serving_clock)
