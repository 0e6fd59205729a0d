"""From the records of batches and jobs to the statuses that people and programs are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lowtide.models import BatchStatus, JobStatus, Usage
from lowtide.protocol.hashes import DAMAGED, hash_reply, read_record
from lowtide.protocol.records import BatchRecord, JobRecord
from lowtide.states import JobState


def batch_status(batch: BatchRecord, jobs: Sequence[JobStatus], problems: Sequence[str]) -> BatchStatus:
    """The status of a batch, with those of its jobs and with its problems."""
    return BatchStatus(
        id=batch.id,
        state=batch.state,
        model=batch.model,
        provider=batch.provider,
        kind=batch.kind,
        destination=batch.destination,
        sources=[uri for uri, _ in batch.sources],
        total=batch.total,
        succeeded=batch.succeeded,
        failed=batch.failed,
        expired=batch.expired,
        cancelled=batch.cancelled,
        jobs=list(jobs),
        problems=list(problems),
        usage=Usage(**{name: getattr(batch, name) for name in Usage.__struct_fields__}),
        labels=batch.labels,
        on_result=batch.on_result,
        idempotency_key=batch.idempotency_key,
        error=batch.error,
        duplicates=batch.duplicates,
        quarantined=batch.quarantined,
        undelivered=batch.undelivered,
        parked=batch.parked,
        created_at=batch.created,
        finished_at=batch.finished,
    )


def job_status(name: str, reply: Any, due: float | None) -> JobStatus:
    """The status of a job, from the reply of a pipeline; a job whose record is damaged is shown all the same."""
    try:
        job = read_record(JobRecord, hash_reply(reply))
    except DAMAGED as error:
        problem = f"its record cannot be read: {type(error).__name__}: {error}"
        return JobStatus(id=name, state=JobState.UNKNOWN, requests=0, attempt=0, problem=problem)
    return JobStatus(
        id=job.id,
        state=job.state,
        requests=job.requests,
        attempt=job.attempt,
        name=job.name,
        provider_state=job.provider_state,
        done_requests=job.done_requests,
        polls=job.polls,
        error=job.error,
        problem=job.problem,
        created_at=job.created,
        next_at=due,
    )
