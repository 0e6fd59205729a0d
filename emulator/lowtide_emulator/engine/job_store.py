"""All jobs of an emulator, of either API."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from lowtide_emulator.engine.jobs import Job


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

    def find(self, job_id: str, collection: str) -> Job | None:
        """Return a job that has not been deleted."""
        job = self._by_id.get(job_id)
        return None if job is None or job.deleted_at is not None or job.collection != collection else job

    def find_deleted(self, job_id: str) -> Job | None:
        """Return a job that has been deleted."""
        job = self._by_id.get(job_id)
        return None if job is None or job.deleted_at is None else job

    def live(self, now: float) -> list[Job]:
        """Return the jobs that are not over; deleting one does not end it."""
        with self._lock:
            self._maybe_live = [job for job in self._maybe_live if not job.at(now).state.is_terminal]
            return self._maybe_live

    def newest_first(self, before: int | None, collection: str) -> Iterator[Job]:
        """Yield the jobs of a collection that are not deleted, from the one before number ``before`` on."""
        start = len(self._jobs) if before is None else min(before, len(self._jobs))
        for index in range(start - 1, -1, -1):
            job = self._jobs[index]
            if job.deleted_at is None and job.collection == collection:
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
