"""Records, and what a worker holds, with only the fields that a test is about."""

from __future__ import annotations

import time
from typing import Any

from msgspec.structs import asdict

from lowtide.protocol import (
    RECORD_VERSION,
    BatchRecord,
    EntityRecord,
    JobRecord,
    SegmentRecord,
    Stage,
    keys,
    split_job_id,
    written_fields,
)
from lowtide.states import BatchState, JobState
from lowtide_worker.state import HeldBatch, HeldJob, HeldSegment


def a_batch(batch_id: str, **fields: Any) -> BatchRecord:
    known: dict[str, Any] = {
        "v": RECORD_VERSION,
        "state": BatchState.RUNNING,
        "created": 1.0,
        "model": "gemini-3.5-flash",
    }
    return BatchRecord(**known | {"id": batch_id} | fields)


def a_job(job: str, **fields: Any) -> JobRecord:
    batch_id, number = split_job_id(job)
    known: dict[str, Any] = {"v": RECORD_VERSION, "state": JobState.PLANNED, "attempt": 1}
    known |= {"first": 0, "last": 1, "requests": 1}
    return JobRecord(**known | {"id": job, "batch_id": batch_id, "number": number} | fields)


def a_segment(job: str, number: int, **fields: Any) -> SegmentRecord:
    known: dict[str, Any] = {"v": RECORD_VERSION, "batch_id": split_job_id(job)[0], "job_id": job, "number": number}
    return SegmentRecord(**known | fields)


def hash_of(record: EntityRecord) -> dict[Any, Any]:
    """The fields of a record as a Redis hash has them, without those that are empty."""
    flat = iter(written_fields(asdict(record)))
    return {name: value for name, value in zip(flat, flat, strict=True) if value != ""}


def held_batch(record: BatchRecord, stage: Stage, token: int = 1) -> HeldBatch:
    member = keys.batch_member(record.id)
    return HeldBatch(member=member, stage=stage, token=token, record=record, begun=time.time())


def held_job(record: JobRecord, batch: BatchRecord, stage: Stage, token: int = 1) -> HeldJob:
    member = keys.job_member(record.id)
    return HeldJob(member=member, stage=stage, token=token, record=record, batch=batch, begun=time.time())


def held_segment(
    record: SegmentRecord, batch: BatchRecord, token: int = 1, *, job: JobRecord | None = None
) -> HeldSegment:
    member = keys.segment_member(record.job_id, record.number)
    return HeldSegment(
        member=member,
        stage=Stage.DELIVER,
        token=token,
        record=record,
        batch=batch,
        job_record=job,
        begun=time.time(),
    )
