"""A batch job and where it stands at a given moment.

Nothing moves a job: its state is computed from the emulated clock, from what was asked of it
(cancel) and from whether its results are written. The names on the wire are another module's.

Source: https://ai.google.dev/gemini-api/docs/batch-api and https://ai.google.dev/api/batch-api
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from lowtide_emulator.faults import kinds

K = TypeVar("K", bound=kinds.Kind)


class JobState(Enum):
    """The states the services have; the last two are Vertex AI's alone."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    CANCELLING = "CANCELLING"
    PARTIALLY_SUCCEEDED = "PARTIALLY_SUCCEEDED"

    @property
    def is_terminal(self) -> bool:
        """Whether a job in this state will never change again."""
        return self not in (JobState.PENDING, JobState.RUNNING, JobState.CANCELLING)


class Moment(NamedTuple):
    """A job as it stands now; times in seconds since the epoch."""

    state: JobState
    updated: float
    ended: float | None


class Ending(NamedTuple):
    """How a job's work ends, as far as is known: when, in which state, with how many of its rows."""

    at: float
    state: JobState
    rows: int


class Failure(NamedTuple):
    """Why a job failed by itself, and when."""

    code: int
    message: str
    at: float


@dataclass
class Progress:
    """What the answering of a job's rows has come to; written by one thread.

    answered: rows answered so far.
    failed: the indices of rows that got no response, ascending.
    answered_at: when the last row was answered, on the emulated clock.
    ready_at: when the results were complete and in their place, on the emulated clock.
    stop: asks the answering thread to give up.
    failure: what went wrong with the job as a whole, if anything did.
    """

    answered: int = 0
    failed: array[int] = field(default_factory=lambda: array("Q"))
    answered_at: float | None = None
    ready_at: float | None = None
    stop: bool = False
    failure: Failure | None = None


@dataclass
class Job:
    """A batch job, with everything that was decided when it was created.

    number: position in the order of creation.
    collection: what its name begins with.
    source: name of the input, None for inline rows.
    requests: number of rows; 0 until they have been counted.
    expire_seconds: the longest life of a job.
    queue_seconds: the longest time a job is PENDING.
    run_seconds: the longest time a job is RUNNING.
    cancelling_seconds: how long a job is CANCELLING, at least.
    exports: the results go to a place of the caller's, and so do those of a job that was cancelled
        or has expired after it had begun; it is over only when they are there.
    faults: what shall go wrong with it.
    """

    number: int
    id: str
    collection: str
    model: str
    display_name: str
    embeddings: bool
    source: str | None
    requests: int
    created: float
    pending_seconds: float
    running_seconds: float
    faults: Sequence[kinds.Kind]
    input_path: Path
    keys_path: Path
    output_path: Path
    expire_seconds: float = inf
    queue_seconds: float = inf
    run_seconds: float = inf
    cancelling_seconds: float = 0.0
    exports: bool = False
    progress: Progress = field(default_factory=Progress)
    cancelled_at: float | None = None
    deleted_at: float | None = None

    @property
    def name(self) -> str:
        """The resource name."""
        return f"{self.collection}/{self.id}"

    @property
    def inline(self) -> bool:
        """Whether the rows came in the create call itself."""
        return self.source is None

    def fault(self, kind: type[K]) -> K | None:
        """Return the first fault of a kind, if the job has one."""
        return next((fault for fault in self.faults if isinstance(fault, kind)), None)

    @property
    def rows_delivered(self) -> int:
        """How many of the rows the results will hold, from the first on."""
        if self.fault(kinds.StuckPending):
            return 0
        for fault in self.faults:
            if isinstance(fault, kinds.SomeRowsDone):
                return round(fault.fraction * self.requests)
        return self.requests

    def done_by(self, moment: float) -> int:
        """Return how many rows the service would have answered by then."""
        elapsed = moment - self.starts
        if elapsed <= 0:
            return 0
        share = 1.0 if self.running_seconds <= 0 else min(1.0, elapsed / self.running_seconds)
        return min(int(share * self.requests), self.rows_delivered)

    @property
    def starts(self) -> float:
        """When it begins to run, if it is not cancelled before; may be infinite."""
        return inf if self.fault(kinds.StuckPending) else self.created + self.pending_seconds

    @property
    def ending(self) -> Ending:
        """How the work ends, if nothing more is asked of it; the results may take longer."""
        failure = self.progress.failure
        starts = self.starts
        if self.cancelled_at is not None:
            kept = self.exports and failure is None
            return Ending(self.cancelled_at, JobState.CANCELLED, self.done_by(self.cancelled_at) if kept else 0)
        if failure is not None and starts < inf:
            return Ending(max(starts, failure.at), JobState.FAILED, 0)
        planned = inf if self.fault(kinds.StuckRunning) else starts + self.running_seconds
        expires = self.created + self.expire_seconds
        if starts > self.created + self.queue_seconds:
            expires = min(expires, self.created + self.queue_seconds)
        else:
            expires = min(expires, starts + self.run_seconds)
        if planned > expires:
            return Ending(expires, JobState.EXPIRED, self.done_by(expires) if self.exports else 0)
        return Ending(planned, self._last_state, self.rows_delivered)

    @property
    def _last_state(self) -> JobState:
        for fault in self.faults:
            match fault:
                case kinds.Fail():
                    return JobState.FAILED
                case kinds.Expire():
                    return JobState.EXPIRED
                case kinds.Cancel():
                    return JobState.CANCELLED
                case kinds.PartialOutput(state=state):
                    return JobState(state)
                case _:
                    pass
        return JobState.SUCCEEDED

    def at(self, now: float) -> Moment:
        """Return how the job stands at ``now``."""
        ending = self.ending
        if now >= ending.at:
            closes = ending.at
            if self.cancelled_at is not None:
                closes += self.cancelling_seconds
            ready = self.progress.ready_at if self._waits(ending) else closes
            if ready is not None and now >= max(closes, ready):
                ended = max(closes, ready)
                return Moment(ending.state, ended, ended)
            busy = JobState.RUNNING if self.cancelled_at is None else JobState.CANCELLING
            return Moment(busy, now, None)
        if now >= self.starts:
            return Moment(JobState.RUNNING, now, None)
        return Moment(JobState.PENDING, self.created, None)

    def _waits(self, ending: Ending) -> bool:
        if self.exports:
            return self.progress.failure is None and ending.at >= self.starts
        return ending.rows > 0

    def has_results(self, now: float) -> bool:
        """Whether the job is over and what it produced can be seen."""
        ended = self.at(now).ended
        if ended is None or self.ending.rows == 0:
            return False
        missing = self.fault(kinds.NoOutput)
        if missing is None:
            return True
        return missing.seconds is not None and now >= ended + missing.seconds

    def counts(self, now: float) -> tuple[int, int, int]:
        """Return how many rows have succeeded, failed and are not done at ``now``."""
        over = self.at(now).ended is not None
        ending = self.ending
        done = ending.rows if over else min(self.done_by(min(now, ending.at)), self.progress.answered)
        failed = bisect_left(self.progress.failed, done)
        return done - failed, failed, self.requests - done

    def billed(self, now: float) -> int:
        """Return how many rows have been paid at ``now``."""
        return self.counts(now)[0] if self.at(now).ended is not None else 0

    def keys(self) -> list[str]:
        """Return the keys of the rows, in input order; an empty one where a row has none.

        There are none before the rows have been counted.
        """
        if self.requests == 0:
            return []
        return msgspec.json.decode(b"[" + b",".join(self.keys_path.read_bytes().splitlines()) + b"]", type=list[str])
