"""A batch job and where it stands at a given moment (contract §2).

Nothing moves a job: its state is computed from the emulated clock, from what was asked of it
(cancel) and from whether its results are written. The names on the wire are another module's.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from lowtide_emulator import fault_kinds as kinds

K = TypeVar("K", bound=kinds.Kind)


class JobState(Enum):
    """The states every service of this family has."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"

    @property
    def is_terminal(self) -> bool:
        """Whether a job in this state will never change again."""
        return self not in (JobState.PENDING, JobState.RUNNING)


class Moment(NamedTuple):
    """A job as it stands now; times in seconds since the epoch."""

    state: JobState
    updated: float
    ended: float | None


@dataclass
class Progress:
    """What the answering of a job's rows has come to; written by one thread.

    answered: rows answered so far.
    failed: the indices of rows that got no response.
    ready_at: when the results were complete, on the emulated clock.
    stop: asks the answering thread to give up.
    """

    answered: int = 0
    failed: array[int] = field(default_factory=lambda: array("Q"))
    ready_at: float | None = None
    stop: bool = False
    broken: str | None = None


@dataclass
class Job:
    """A batch job, with everything that was decided when it was created.

    number: position in the order of creation.
    source: name of the input file, None for inline rows.
    faults: what shall go wrong with it.
    """

    number: int
    id: str
    model: str
    display_name: str
    embeddings: bool
    source: str | None
    requests: int
    created: float
    pending_seconds: float
    running_seconds: float
    expire_seconds: float
    faults: Sequence[kinds.Kind]
    input_path: Path
    keys_path: Path
    output_path: Path
    progress: Progress = field(default_factory=Progress)
    cancelled_at: float | None = None
    deleted_at: float | None = None

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
        if self.fault(kinds.StuckPending) or self.fault(kinds.StuckRunning):
            return 0
        if self.fault(kinds.Fail) or self.fault(kinds.Expire):
            return 0
        cancel = self.fault(kinds.Cancel)
        partial = self.fault(kinds.PartialOutput)
        if cancel is not None:
            return round(cancel.fraction * self.requests)
        if partial is not None:
            return round(partial.fraction * self.requests)
        return self.requests

    @property
    def _last_state(self) -> JobState:
        if self.fault(kinds.Fail) or self.progress.broken is not None:
            return JobState.FAILED
        if self.fault(kinds.Expire):
            return JobState.EXPIRED
        if self.fault(kinds.Cancel):
            return JobState.CANCELLED
        return JobState.SUCCEEDED

    def at(self, now: float) -> Moment:
        """Return how the job stands at ``now``."""
        starts = inf if self.fault(kinds.StuckPending) else self.created + self.pending_seconds
        planned = inf if self.fault(kinds.StuckRunning) else starts + self.running_seconds
        expires = self.created + self.expire_seconds
        if planned > expires:
            ends, last = expires, JobState.EXPIRED
        elif self.rows_delivered == 0:
            ends, last = planned, self._last_state
        elif self.progress.ready_at is None:
            ends, last = inf, JobState.RUNNING
        else:
            ends, last = max(planned, self.progress.ready_at), self._last_state
        if self.cancelled_at is not None:
            ends, last = self.cancelled_at, JobState.CANCELLED
        if now >= ends:
            return Moment(last, ends, ends)
        if now >= starts:
            return Moment(JobState.RUNNING, now, None)
        return Moment(JobState.PENDING, self.created, None)

    def has_results(self, now: float) -> bool:
        """Whether the job is over and what it produced can be seen."""
        if self.cancelled_at is not None or self.rows_delivered == 0:
            return False
        moment = self.at(now)
        if moment.ended is None or moment.state not in (JobState.SUCCEEDED, JobState.CANCELLED):
            return False
        missing = self.fault(kinds.NoOutput)
        if missing is None:
            return True
        return missing.seconds is not None and now >= moment.ended + missing.seconds

    def counts(self, now: float) -> tuple[int, int, int]:
        """Return how many rows have succeeded, failed and are pending at ``now``."""
        moment = self.at(now)
        if moment.ended is not None:
            if moment.state in (JobState.SUCCEEDED, JobState.CANCELLED) and self._is_paid:
                failed = len(self.progress.failed)
                done = self.progress.answered
                return done - failed, failed, 0
            return 0, 0, self.requests
        elapsed = now - self.created - self.pending_seconds
        if elapsed <= 0 or self.running_seconds <= 0:
            return 0, 0, self.requests
        share = min(1.0, elapsed / self.running_seconds)
        done = min(int(share * self.requests), self.progress.answered)
        failed = min(len(self.progress.failed), done)
        return done - failed, failed, self.requests - done

    @property
    def _is_paid(self) -> bool:
        return self.cancelled_at is None and self.progress.ready_at is not None

    def billed(self, now: float) -> int:
        """Return how many rows have been paid at ``now``."""
        return self.counts(now)[0] if self.at(now).ended is not None else 0

    def keys(self) -> list[str]:
        """Return the keys of the rows, in input order; an empty one where a row has none."""
        return msgspec.json.decode(b"[" + b",".join(self.keys_path.read_bytes().splitlines()) + b"]", type=list[str])


class JobStore:
    """All jobs ever created, also deleted ones. Safe to read from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._by_id: dict[str, Job] = {}
        self._maybe_live: list[Job] = []

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs))

    def next_number(self) -> int:
        """Return the number of the next job."""
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Keep a new job."""
        with self._lock:
            self._jobs.append(job)
            self._by_id[job.id] = job
            self._maybe_live.append(job)

    def find(self, job_id: str) -> Job | None:
        """Return a job that has not been deleted."""
        job = self._by_id.get(job_id)
        return None if job is None or job.deleted_at is not None else job

    def find_deleted(self, job_id: str) -> Job | None:
        """Return a job that has been deleted."""
        job = self._by_id.get(job_id)
        return None if job is None or job.deleted_at is None else job

    def live(self, now: float) -> int:
        """Return how many jobs are not over; deleting one does not end it."""
        with self._lock:
            self._maybe_live = [job for job in self._maybe_live if not job.at(now).state.is_terminal]
            return len(self._maybe_live)

    def newest_first(self, before: int | None) -> Iterator[Job]:
        """Yield the jobs that are not deleted, from the one before number ``before`` on."""
        start = len(self._jobs) if before is None else min(before, len(self._jobs))
        for index in range(start - 1, -1, -1):
            job = self._jobs[index]
            if job.deleted_at is None:
                yield job

    def stop(self) -> None:
        """Stop the work on all jobs."""
        for job in self:
            job.progress.stop = True

    def clear(self) -> None:
        """Forget all jobs and stop the work on them."""
        self.stop()
        with self._lock:
            self._jobs = []
            self._by_id = {}
            self._maybe_live = []
