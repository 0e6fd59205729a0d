"""A batch job and its state at a given time.

The state of a job is not stored. It is computed from the emulated clock, from a cancel call, and from the progress of
the work on its results. The packages `gemini` and `vertex` turn states into the names of their wire format.

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

from lowtide_emulator.engine.bill import Bill, Tokens
from lowtide_emulator.faults import kinds

K = TypeVar("K", bound=kinds.Kind)
_decode_keys = msgspec.json.Decoder(list[str]).decode


class JobState(Enum):
    """The states of a job; only Vertex AI has the last two."""

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
        """Whether this state is final."""
        return self not in (JobState.PENDING, JobState.RUNNING, JobState.CANCELLING)


class Moment(NamedTuple):
    """The state of a job at one time; times in seconds since the epoch.

    updated: the time of the last change.
    ended: the end of the job; None for an unfinished job.
    """

    state: JobState
    updated: float
    ended: float | None


class Ending(NamedTuple):
    """The end of the work on a job, as known so far.

    at: the time of the end; may be infinite.
    state: the state that the job ends in.
    rows: the number of its rows that are delivered.
    """

    at: float
    state: JobState
    rows: int


class Failure(NamedTuple):
    """The error that made a job fail, and its time. Errors that a fault rule asks for are not here."""

    code: int
    message: str
    at: float


@dataclass
class Progress:
    """The progress of the work on a job's rows; written by one thread.

    answered: the number of rows that are answered.
    failed: the indices of rows without a successful response, ascending.
    answered_at: the time when the last row was answered, on the emulated clock.
    ready_at: the time when the results were complete and in place, on the emulated clock.
    bill: the tokens of the answered rows.
    stop: makes the answering thread stop.
    failure: the error of the job as a whole; None if there is none.
    """

    answered: int = 0
    failed: array[int] = field(default_factory=lambda: array("Q"))
    answered_at: float | None = None
    ready_at: float | None = None
    bill: Bill = field(default_factory=Bill)
    stop: bool = False
    failure: Failure | None = None


@dataclass
class Job:
    """A batch job, with all that its creation decides.

    number: the position in the order of creation, from 0.
    collection: the start of its name, before the id.
    answered_by: the model that answers the rows and is billed for them, without a prefix.
    source: the name of the input; None for inline rows.
    requests: the number of rows; 0 until they are counted.
    tokens: the input tokens; 0 if no quota needs them.
    expire_seconds: the age at which an unfinished job expires.
    queue_seconds: the longest time that a job is PENDING.
    run_seconds: the longest time that a job is RUNNING.
    cancelling_seconds: the shortest time that a job is CANCELLING.
    exports: whether the results go to a place of the caller's. Such a job delivers results even if it is cancelled or
        expires after its start, and it is finished only when they are in place.
    faults: the faults that hit this job.
    """

    number: int
    id: str
    collection: str
    model: str
    answered_by: str
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
    tokens: int = 0
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
        """Whether the create call contained the rows."""
        return self.source is None

    def fault(self, kind: type[K]) -> K | None:
        """Returns the first fault of a kind; None if no fault of this kind hits the job."""
        return next((fault for fault in self.faults if isinstance(fault, kind)), None)

    @property
    def rows_delivered(self) -> int:
        """The number of rows in the complete results, counted from the first."""
        if self.fault(kinds.StuckPending):
            return 0
        for fault in self.faults:
            if isinstance(fault, kinds.SomeRowsDone):
                return round(fault.fraction * self.requests)
        return self.requests

    def done_by(self, moment: float) -> int:
        """Returns the number of rows that the service would have answered by this time."""
        elapsed = moment - self.starts
        if elapsed <= 0:
            return 0
        share = 1.0 if self.running_seconds <= 0 else min(1.0, elapsed / self.running_seconds)
        return min(int(share * self.requests), self.rows_delivered)

    @property
    def starts(self) -> float:
        """The time when the job starts to run, unless it is cancelled before; may be infinite."""
        return inf if self.fault(kinds.StuckPending) else self.created + self.pending_seconds

    @property
    def ending(self) -> Ending:
        """The end of the work, if no further call changes it; the results may be in place later."""
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
        """Returns the state of the job at `now`."""
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
        """Whether the job is finished and its results can be read."""
        ended = self.at(now).ended
        if ended is None or self.ending.rows == 0:
            return False
        missing = self.fault(kinds.NoOutput)
        if missing is None:
            return True
        return missing.seconds is not None and now >= ended + missing.seconds

    def counts(self, now: float) -> tuple[int, int, int]:
        """Returns the numbers of rows that are successful, failed and not done at `now`."""
        over = self.at(now).ended is not None
        ending = self.ending
        done = ending.rows if over else min(self.done_by(min(now, ending.at)), self.progress.answered)
        failed = bisect_left(self.progress.failed, done)
        return done - failed, failed, self.requests - done

    def billed(self, now: float) -> int:
        """Returns the number of rows that are billed by `now`."""
        return self.counts(now)[0] if self.at(now).ended is not None else 0

    def billed_tokens(self, now: float) -> Tokens:
        """Returns the tokens that are billed by `now`: those of the rows that the job delivers."""
        return self.progress.bill.tokens(self.ending.rows if self.at(now).ended is not None else 0)

    def keys(self) -> list[str]:
        """Returns the key of each row, in input order; an empty string for a row without a key.

        The list is empty until the rows are counted.
        """
        if self.requests == 0:
            return []
        return _decode_keys(b"[" + b",".join(self.keys_path.read_bytes().splitlines()) + b"]")
