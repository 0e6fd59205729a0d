"""The retry job of a job that closes: what it carries, and how its requests are counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from lowtide.protocol import Stage, measures, written_fields
from lowtide.protocol.changes import CarriedRequests, new_job
from lowtide.states import JobState
from lowtide.store import pairs
from lowtide_worker.state.held import HeldJob
from lowtide_worker.state.ordinals import Ordinals


class RetryJob(NamedTuple):
    """A retry job as close.lua takes it."""

    bitmap: bytes | str
    """The requests that it carries; "" for no retry job."""
    totals: list[Any]
    """Counters of all batches and their amounts, one after the other."""
    fields: list[Any]
    """Its fields and their values, one after the other."""


NO_RETRY = RetryJob("", [], [])


def retry_job(job: HeldJob, retry: Ordinals, *, attempt: int | None = None, losses: int | None = None) -> RetryJob:
    """The job in which `retry` run again. It has the attempt and the losses of `job`, but for the one that is given."""
    new = new_job(
        job.batch_id,
        stage=Stage.CREATE,
        attempt=job.record.attempt if attempt is None else attempt,
        losses=job.record.losses if losses is None else losses,
    )
    totals = pairs((measures.counter(measures.RETRIES, reason), n) for reason, n in _reasons(job, len(retry)))
    return RetryJob(retry.bitmap or b"", totals, [*written_fields(new), *written_fields(carried_by(retry))])


def carried_by(ordinals: Ordinals) -> CarriedRequests:
    """The fields of a job that carries these requests."""
    sparse = ordinals.bitmap is not None
    return {"first": ordinals.first, "last": ordinals.last, "requests": len(ordinals), "sparse": sparse}


def _reasons(job: HeldJob, requests: int) -> Iterator[tuple[str, int]]:
    """Why so many requests of a job run again, each counted once: by the reasons of their rows, else by the job's."""
    left = requests
    # A request with two rows that both say so is one request.
    for reason, count in job.record.retried_by.items():
        if some := min(count, left):
            yield reason, some
        left -= some
    if left:
        yield _reason(job), left


def _reason(job: HeldJob) -> str:
    """The reason why requests of a job got no row."""
    if job.record.error is not None:
        return measures.short_reason(job.record.error.reason)
    ended_well = job.record.state in (JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED)
    return measures.MISSING if ended_well else job.record.state.upper()
