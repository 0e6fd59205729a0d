"""The jobs of an emulator, of both APIs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from lowtide_emulator.engine.jobs import Job


class JobStore:
    """All jobs since the last reset, also deleted ones. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._by_id: dict[str, Job] = {}
        self._maybe_live: list[Job] = []

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs))

    def next_number(self) -> int:
        """Returns the number of the next job."""
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Adds a new job."""
        with self._lock:
            self._jobs.append(job)
            self._by_id[job.id] = job
            self._maybe_live.append(job)

    def find(self, job_id: str, collection: str) -> Job | None:
        """Returns a job of a collection; None if it does not exist or is deleted."""
        job = self._by_id.get(job_id)
        return None if job is None or job.deleted_at is not None or job.collection != collection else job

    def has(self, job_id: str) -> bool:
        """Whether a job has this id, also a deleted one."""
        return job_id in self._by_id

    def find_deleted(self, job_id: str) -> Job | None:
        """Returns a deleted job; None if no deleted job has this id."""
        job = self._by_id.get(job_id)
        return None if job is None or job.deleted_at is None else job

    def live(self, now: float) -> list[Job]:
        """Returns the unfinished jobs, also deleted ones: deleting a job does not end it."""
        with self._lock:
            self._maybe_live = [job for job in self._maybe_live if not job.at(now).state.is_terminal]
            return self._maybe_live

    def newest_first(self, before: int | None, collection: str) -> Iterator[Job]:
        """Yields the jobs of a collection that are not deleted, newest first.

        before: yields only jobs with a smaller number; None yields all.
        """
        start = len(self._jobs) if before is None else min(before, len(self._jobs))
        for index in range(start - 1, -1, -1):
            job = self._jobs[index]
            if job.deleted_at is None and job.collection == collection:
                yield job

    def stop(self) -> None:
        """Stops the work on all jobs."""
        for job in self:
            job.progress.stop = True

    def clear(self) -> None:
        """Removes all jobs and stops the work on them."""
        self.stop()
        with self._lock:
            self._jobs = []
            self._by_id = {}
            self._maybe_live = []
