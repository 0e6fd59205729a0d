"""Rows that a job reports as done and that its output did not have when it was read: whether they may still come.

Only output that is read by ranges needs this. A download is counted before any of it is used.
"""

from __future__ import annotations

import logging

from lowtide.protocol import Stage
from lowtide.protocol.changes import JobChange
from lowtide_worker.events import Event
from lowtide_worker.providers import ProviderError
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.collect import grace_is_over, output_of
from lowtide_worker.state import HeldJob, JobMove, Move, restart_collect

log = logging.getLogger(__name__)


def late_rows(runtime: Runtime, job: HeldJob, missing: int) -> JobMove | None:
    """Returns the next check of a job's output, where more rows than came were reported; None where none is needed.

    - `missing`: the number of its requests without a result.

    If the files are others by then, they are collected again.
    """
    record = job.record
    without_row = missing - sum(record.retried_by.values())
    undone = record.requests - record.done_requests
    if not record.parts or not record.done_requests or without_row <= undone:
        return None
    if job.batch.cancel or grace_is_over(runtime, record, job.now()):
        return None
    problem = f"the job reports {record.done_requests} rows, and {without_row - undone} of them have not come yet"
    log.warning("job %s: %s", record.id, problem, extra=Event.OUTPUT_INCOMPLETE.extra)
    fields: JobChange = {
        "doubted": job.noted(record.doubted),
        "doubts": record.doubts + 1,
        "problem": problem,
    }
    try:
        parts = runtime.provider(job.batch.provider).parts(output_of(runtime, job, rows=record.done_requests))
    except ProviderError:
        # Whatever it is, the grace must begin and end: the job has to settle some day.
        parts = []
    if parts and tuple(parts) != record.parts:
        restart_collect(runtime.redis, job)
        return Move(stage=Stage.COLLECT, fields=fields)
    return Move(stage=Stage.SETTLE, after=runtime.retry_backoff.seconds(record.doubts), fields=fields)
