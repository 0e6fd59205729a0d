"""Records of batches and jobs, as the store keeps them, turned into what people and programs are shown."""

from __future__ import annotations

from typing import Any

import msgspec
import redis

from lowtide.models import BatchStatus, JobStatus, ResultError, Usage
from lowtide.states import BatchState, JobState, Kind, ProviderName

_decode = msgspec.json.decode
DAMAGED = (KeyError, ValueError, TypeError, redis.ResponseError)
"""Errors of reading a record that is not as any version of ours writes it."""


def text_fields(reply: Any) -> dict[str, str]:
    """The fields of a hash; raises where its key holds something else."""
    if isinstance(reply, Exception):
        raise reply
    return {name.decode(): value.decode() for name, value in reply.items()}


def shown_field(reply: Any) -> str:
    """A field for people to read; nothing where its record is damaged."""
    return reply.decode(errors="replace") if isinstance(reply, bytes) else ""


def _error(text: str | None) -> ResultError | None:
    return _decode(text, type=ResultError) if text else None


def batch_status(batch: dict[str, str], jobs: list[JobStatus], hindered: list[str]) -> BatchStatus:
    """A batch, from its hash; raises one of `DAMAGED` where that is not as any version of ours writes it."""

    def count(name: str) -> int:
        return int(batch.get(name, 0))

    return BatchStatus(
        id=batch["id"],
        state=BatchState(batch["state"]),
        model=batch["model"],
        # A batch of an older version may lack these.
        provider=ProviderName(batch.get("provider") or ProviderName.GEMINI),
        kind=Kind(batch.get("kind") or Kind.GENERATION),
        destination=batch.get("destination") or None,
        sources=[uri for uri, *_ in _decode(batch.get("sources") or "[]")],
        total=count("total"),
        succeeded=count("succeeded"),
        failed=count("failed"),
        expired=count("expired"),
        cancelled=count("cancelled"),
        jobs=jobs,
        problems=hindered,
        usage=Usage(**{name: count(name) for name in Usage.__struct_fields__}),
        labels=_decode(batch["labels"]),
        on_result=batch["on_result"] or None,
        idempotency_key=batch["idempotency_key"] or None,
        error=_error(batch.get("error")),
        duplicates=count("duplicates"),
        quarantined=count("quarantined"),
        undelivered=count("undelivered"),
        parked=count("parked"),
        created_at=float(batch["created"]),
        finished_at=float(batch["finished"]) if "finished" in batch else None,
    )


def job_status(name: str, reply: Any, due: Any) -> JobStatus:
    """A job; one whose record is damaged is shown all the same."""
    try:
        return _readable_job_status(text_fields(reply), due)
    except DAMAGED as error:
        problem = f"its record cannot be read: {type(error).__name__}: {error}"
        return JobStatus(id=name, state=JobState.UNKNOWN, requests=0, attempt=0, problem=problem)


def _readable_job_status(job: dict[str, str], due: float | None) -> JobStatus:
    return JobStatus(
        id=job["id"],
        state=JobState(job["state"]),
        requests=int(job["requests"]),
        attempt=int(job["attempt"]),
        name=job.get("name") or None,
        provider_state=job.get("provider_state") or None,
        done_requests=int(job.get("done_requests", 0)),
        polls=int(job.get("polls", 0)),
        error=_error(job.get("error")),
        problem=job.get("problem") or None,
        created_at=float(job["created"]) if "created" in job else None,
        next_at=due,
    )
