"""From the records of batches and jobs to the statuses that people and programs are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from lowtide.models import BatchStatus, JobStatus, Usage, Waiting
from lowtide.protocol.hashes import DAMAGED, hash_reply, read_record
from lowtide.protocol.records import PAID, BatchRecord, JobRecord
from lowtide.same_model import is_same_model
from lowtide.states import Awaited, JobState

OTHERS = "(others)"
"""The name under which record.lua counts reasons and models beyond the first few."""


def batch_status(
    batch: BatchRecord, jobs: Sequence[JobStatus], problems: Sequence[str], waiting: Waiting | None = None
) -> BatchStatus:
    """The status of a batch, with those of its jobs and with its problems.

    `jobs` may be some of its jobs, or none, where the status need not have them.
    """
    return BatchStatus(
        id=batch.id,
        state=batch.state,
        model=batch.model,
        provider=batch.provider,
        kind=batch.kind,
        destination=batch.destination,
        sources=[part.name for part in batch.sources],
        total=batch.total,
        succeeded=batch.succeeded,
        failed=batch.failed,
        expired=batch.expired,
        cancelled=batch.cancelled,
        jobs=list(jobs),
        bundle=batch.bundle,
        waiting=waiting,
        bundled=batch.bundled,
        problems=list(problems),
        warnings=[
            f"{name} gave {count:,} of {_settled(batch):,} results; {batch.model} was asked for"
            for name, count in other_models(batch.model, batch.models).items()
        ],
        answered=_answered(batch, jobs),
        estimated_tokens=batch.tokens,
        usage=Usage(**{name: getattr(batch, name) for name in Usage.__struct_fields__}),
        discarded_usage=Usage(**{name: _discarded(batch, name) for name in Usage.__struct_fields__}),
        max_cost=batch.max_cost,
        cost=_known(batch.cost, batch),
        paid_cost=_known(batch.paid_cost, batch),
        unpriced=batch.unpriced,
        reasons=batch.reasons,
        models=batch.models,
        labels=batch.labels,
        on_result=batch.on_result,
        on_finished=batch.on_finished,
        on_progress=batch.on_progress,
        idempotency_key=batch.idempotency_key,
        # That of a job whose requests all succeeded in others is history; the job shows it.
        error=None if batch.finished is not None and batch.succeeded == batch.total else batch.error,
        duplicates=batch.duplicates,
        quarantined=batch.quarantined,
        undelivered=batch.undelivered,
        parked=batch.parked,
        created_at=batch.created,
        deadline_at=batch.deadline,
        finished_at=batch.finished,
    )


def with_bundle(batch: BatchRecord, bundle: BatchRecord | None) -> BatchRecord:
    """A batch that shares jobs, with what only its bundle knows; a batch without a bundle as it is."""
    if bundle is None:
        return batch
    stands = batch.finished is None and batch.problem is None
    return replace(
        batch,
        bundled=bundle.bundled,
        lingers_until=bundle.lingers_until if bundle.lane else None,
        problem=bundle.problem if stands else batch.problem,
        undelivered=batch.undelivered + bundle.undelivered,
        parked=batch.parked + bundle.parked,
        delivery_problem=batch.delivery_problem or bundle.delivery_problem,
        delivery_failed=batch.delivery_failed if batch.delivery_problem else bundle.delivery_failed,
    )


def other_models(asked: str, models: Mapping[str, int]) -> dict[str, int]:
    """Those of the models that answered which are not the one that was asked for."""
    return {name: count for name, count in models.items() if name != OTHERS and not is_same_model(asked, name)}


def _discarded(batch: BatchRecord, counter: str) -> int:
    # Older workers did not count what was paid.
    return max(0, int(getattr(batch, PAID[counter])) - int(getattr(batch, counter)))


def _known(cost: int | None, batch: BatchRecord) -> int | None:
    """A cost as users see it: None where rows were answered and the price of none is known."""
    if cost or not (batch.paid_rows or batch.unpriced):
        return cost or 0
    return None if batch.unpriced else cost


def _settled(batch: BatchRecord) -> int:
    return batch.succeeded + batch.failed + batch.expired + batch.cancelled


def _answered(batch: BatchRecord, jobs: Sequence[JobStatus]) -> int:
    """Requests that succeeded or failed, or that the provider has answered as far as these jobs say."""
    return _ended(batch, jobs) - batch.cancelled - batch.expired


def _ended(batch: BatchRecord, jobs: Sequence[JobStatus]) -> int:
    """Those, and the requests that ended without an answer. A damaged job does not say how many requests it has."""
    settled = _settled(batch)
    if batch.finished is not None or not jobs or batch.bundle:
        return settled
    under_way = [job for job in jobs if not job.state.terminal]
    done = sum(min(job.done_requests, job.requests) for job in under_way)
    if len(jobs) < batch.jobs or not all(job.requests for job in jobs):
        return min(batch.total, settled + done)
    # The rows of a job that has just ended are answered too.
    return max(settled, batch.total - sum(job.requests for job in under_way) + done)


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
        continuations=job.continuations,
        name=job.name,
        provider_state=job.provider_state,
        done_requests=job.done_requests,
        polls=job.polls,
        error=job.error,
        problem=job.problem,
        estimated_tokens=job.tokens,
        awaits=_awaited(job),
        shortage=job.shortage if job.state is JobState.PLANNED else None,
        created_at=job.created,
        ended_at=job.ended,
        next_at=due,
    )


def _awaited(job: JobRecord) -> Awaited | None:
    """The reason why a job waits: it is in a line, or was refused and has not been admitted again."""
    if job.state is not JobState.PLANNED or job.awaits is not None:
        return job.awaits if job.state is JobState.PLANNED else None
    return Awaited.QUOTA if job.throttled and job.granted is None else None
