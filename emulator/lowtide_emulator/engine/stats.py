"""Counters of calls, replies, bytes and rows."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter

import msgspec

from lowtide_emulator.engine.bill import Tokens


class StatsSnapshot(msgspec.Struct, frozen=True):
    """The counters at one time.

    calls: the calls by name (`batches.create`, `files.download`, …), also failed ones.
    replies: the HTTP replies by status code; a dropped connection has no reply.
    bytes_in: the bytes of all request bodies.
    bytes_out: the bytes of all response bodies.
    busy_seconds: the processor time for serving and answering; on macOS, for answering only.
    answer_seconds: the part of it for answering.
    rows_answered: the rows that were answered, successfully or not.
    billed: the rows of finished jobs that are billed, by the model that answered them.
    billed_tokens: the tokens of these rows by model, kind (`prompt`, `candidates`, ...) and modality.
    refused: the create calls that a quota refused, by quota: `jobs`, `tokens` or `spend`.
    enqueued_tokens: the input tokens of unfinished jobs, by the model that was asked for; counted only if a limit of
        tokens or money is set.
    spent: the price of the input tokens of the last ten minutes' jobs, in US dollars; counted likewise.
    """

    calls: dict[str, int]
    replies: dict[str, int]
    bytes_in: int
    bytes_out: int
    busy_seconds: float
    answer_seconds: float
    rows_answered: int
    billed: dict[str, int]
    billed_tokens: Tokens
    refused: dict[str, int]
    enqueued_tokens: dict[str, int]
    spent: float


class Stats:
    """The counters. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serving_clock: int | None = None
        self._serving_base = 0.0
        self._clear()

    def _clear(self) -> None:
        self._calls: Counter[str] = Counter()
        self._replies: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._bytes_in = 0
        self._bytes_out = 0
        self._answer_seconds = 0.0
        self._rows = 0

    def serve_from_this_thread(self) -> None:
        """Counts the processor time of the calling thread as time for serving."""
        if sys.platform != "darwin":
            self._serving_clock = time.pthread_getcpuclockid(threading.get_ident())
        self._serving_base = self._serving_seconds()

    def stop_serving(self) -> None:
        """Stops to count the time of the serving thread, which is about to end."""
        self._serving_clock = None

    def call(self, name: str) -> None:
        """Counts one call."""
        with self._lock:
            self._calls[name] += 1

    def reply(self, status: int) -> None:
        """Counts one reply."""
        with self._lock:
            self._replies[str(status)] += 1

    def refused(self, quota: str) -> None:
        """Counts one create call that a quota refused."""
        with self._lock:
            self._refused[quota] += 1

    def received(self, count: int) -> None:
        """Counts bytes of a request body."""
        self._bytes_in += count

    def sent(self, count: int) -> None:
        """Counts bytes of a response body."""
        self._bytes_out += count

    def answered(self, rows: int, seconds: float) -> None:
        """Counts answered rows and the processor time for them."""
        with self._lock:
            self._rows += rows
            self._answer_seconds += seconds

    def snapshot(
        self, *, billed: dict[str, int], billed_tokens: Tokens, enqueued_tokens: dict[str, int], spent: float
    ) -> StatsSnapshot:
        """Returns the present counters, with those that the jobs know."""
        with self._lock:
            return StatsSnapshot(
                calls=dict(sorted(self._calls.items())),
                replies=dict(sorted(self._replies.items())),
                bytes_in=self._bytes_in,
                bytes_out=self._bytes_out,
                busy_seconds=self._serving_seconds() - self._serving_base + self._answer_seconds,
                answer_seconds=self._answer_seconds,
                rows_answered=self._rows,
                billed=billed,
                billed_tokens=billed_tokens,
                refused=dict(sorted(self._refused.items())),
                enqueued_tokens=enqueued_tokens,
                spent=spent,
            )

    def reset(self) -> None:
        """Resets all counters to zero."""
        with self._lock:
            self._clear()
            self._serving_base = self._serving_seconds()

    def _serving_seconds(self) -> float:
        if self._serving_clock is None:
            return self._serving_base
        return time.clock_gettime(self._serving_clock)
