"""settle: once a job's last segment is stored, decides about the requests that have no result yet.

They run again in a new job while they have attempts left. Else Lowtide writes their outcome itself, as one more file of
segments, so that it is stored, counted and delivered like any other result.
"""

from __future__ import annotations

import itertools
import logging
import re
from functools import partial
from typing import IO, cast

import msgspec

from lowtide.models import ResultError
from lowtide.protocol import BatchFiles, Queue, Stage
from lowtide.spool import RequestReader
from lowtide.states import JobState, ResultStatus
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.output import RestRow, SegmentCutter, SegmentedWriter, retryable
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.late_rows import late_rows
from lowtide_worker.state import Done, HeldJob, JobMove, Move, Ordinals, Superseded, UnbalancedError

log = logging.getLogger(__name__)

_WATCH_SECONDS = 600.0
_BALANCE_SECONDS = 1.0
_CHUNK = 4096
_RESULT = re.compile(r"(\d+)-(\d+)\.jsonl", re.ASCII)
_encode = msgspec.json.Encoder().encode


def settle(runtime: Runtime, job: HeldJob) -> JobMove | Done:
    """Closes a job, runs requests without a result again, or writes their outcome."""
    if job.record.segments_left:
        return Move(stage=Stage.SETTLE, after=_WATCH_SECONDS)
    if job.batch.bundled:
        runtime.bundles.spare(job)
    missing = runtime.ledger.unsettled(job.batch_id, runtime.ledger.carried(job))
    reach("settle.after-count")
    if missing is None:
        return _close(runtime, job)
    if later := late_rows(runtime, job, len(missing)):
        return later
    lost = job.record.state not in (JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED)
    verdict = _verdict(runtime, job, lost=lost)
    if verdict is None:
        log.info("job %s: %d requests run again", job.record.id, len(missing), extra=Event.REQUESTS_AGAIN.extra)
        # A job that was lost as a whole costs its requests no attempt; such losses have a limit of their own.
        again = {"losses": job.record.losses + 1} if lost else {"attempt": job.record.attempt + 1}
        return _close(runtime, job, retry=missing, **again)
    # With the token in its name: a worker that was presumed dead must not change what another has put on the clock.
    piece = str(job.token)
    name = BatchFiles(job.batch_id).rest(job.record.number, piece)
    runtime.clock.check(job)
    ends = _write_rest(runtime, job, name, missing, *verdict)
    reach("settle.after-rest-written")
    try:
        runtime.ledger.segment(job, "rest", ends, piece=piece)
    except Superseded:
        runtime.spool.delete(name)
        raise
    reach("settle.after-rest-segments")
    return Done({"state": job.record.state, str(verdict[0]): len(missing)}, wakes=(Queue.RESULTS,))


def _close(runtime: Runtime, job: HeldJob, *, retry: Ordinals | None = None, **again: int) -> JobMove | Done:
    reach("settle.before-close")
    try:
        state = runtime.ledger.close(job, tidy=partial(_tidy, runtime, job.batch_id), retry=retry, **again)
    except UnbalancedError:
        if job.batch.bundle is None:
            raise
        # A segment of the bundle has been granted results of this batch that are not counted yet.
        return Move(stage=Stage.SETTLE, after=_BALANCE_SECONDS)
    reach("settle.after-close")
    if state is not None:
        log.info("batch %s is %s", job.batch_id, state, extra=Event.BATCH_FINISHED.extra)
    facts = {"state": job.record.state, "batch": state or "running", "again": len(retry) if retry else 0}
    return Done(facts, wakes=(Queue.JOBS,))


def _tidy(runtime: Runtime, batch_id: str) -> None:
    """Removes results that do not belong to the batch.

    They are of segments that were given up, or of segments that only a later state of Redis knew: it went back in time,
    and the batch was then cut into other jobs and segments.
    """
    # The list comes first: Redis knows every segment that writes after it.
    names = runtime.spool.names(BatchFiles(batch_id).results)
    segments = runtime.ledger.segments(batch_id)
    for name in names:
        place = _RESULT.fullmatch(name.rpartition("/")[2])
        if place is None:
            continue
        job, number = map(int, place.groups())
        count, given_up = segments.get(job, (0, set()))
        if number >= count or number in given_up:
            log.warning(
                "batch %s: %s is not a result of this batch and is removed",
                *(batch_id, name),
                extra=Event.RESULTS_REMOVED.extra,
            )
            runtime.spool.delete(name)


def _verdict(runtime: Runtime, job: HeldJob, *, lost: bool) -> tuple[ResultStatus, ResultError] | None:
    """The outcome of the requests without a result; None if they may run again."""
    error, state = job.record.error, job.record.state
    if job.batch.cancel:
        return ResultStatus.CANCELLED, ResultError(reason="CANCELLED", message="the batch was cancelled")
    if job.record.refused or (state is JobState.FAILED and error is not None and not retryable(error)):
        return ResultStatus.FAILED, error or ResultError(reason="FAILED", message="the provider refused the job")
    settings = runtime.settings
    overdue = job.now() > settings.deadline_of(job.batch)
    spent = job.record.losses >= settings.max_job_losses if lost else job.record.attempt >= job.batch.max_attempts
    if not spent and not overdue:
        return None
    # A job past its deadline is cancelled by Lowtide: its requests have expired, the user did not cancel them.
    if overdue and job.record.name is None and error is not None:
        # It was never created: the reason is what it waited for.
        return ResultStatus.EXPIRED, error
    if overdue or state is JobState.EXPIRED or (state is JobState.CANCELLED and job.record.cancel_sent):
        return ResultStatus.EXPIRED, ResultError(reason="EXPIRED", message="the provider did not answer in time")
    if state is JobState.CANCELLED:
        message = "the job was cancelled at the provider"
        return ResultStatus.CANCELLED, ResultError(reason="CANCELLED", message=message)
    missing = ResultError(reason="MISSING", message="the provider's output has no row for this request")
    return ResultStatus.FAILED, error or missing


def _write_rest(
    runtime: Runtime, job: HeldJob, name: str, missing: Ordinals, status: ResultStatus, error: ResultError
) -> list[int]:
    """Writes a row for each request without a result; returns the offsets at which the segments end."""
    settings = runtime.settings
    reader = RequestReader(runtime.spool, job.batch_id)
    cutter = SegmentCutter(max_bytes=settings.segment_bytes, max_rows=settings.segment_rows)
    with runtime.spool.write(name) as file:
        sink = SegmentedWriter(file, cutter, runtime.clock.keeper(job))
        ordinals = iter(missing)
        while chunk := list(itertools.islice(ordinals, _CHUNK)):
            lines = (_encode(RestRow(line.wire, status, error)) + b"\n" for line in reader.keys(chunk).values())
            cast("IO[bytes]", sink).write(b"".join(lines))
    return cutter.finish()
