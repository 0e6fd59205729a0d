"""settle: once a job's last segment is in, decides what becomes of requests that have no result yet.

They run again in a new job while they have attempts left; else Lowtide writes their outcome itself, as one more
file of segments, so that it is stored, counted and delivered like any other result.
"""

from __future__ import annotations

import itertools
import logging
from typing import IO, cast

import msgspec

from lowtide.layout import BatchFiles
from lowtide.messages import Stage
from lowtide.models import ResultError
from lowtide.requests import RequestReader
from lowtide.states import JobState, ResultStatus
from lowtide.wire import wire_key
from lowtide_worker.clock import Held, Move
from lowtide_worker.ledger import Rows
from lowtide_worker.runtime import Runtime
from lowtide_worker.segments import SegmentCutter, SegmentedWriter
from lowtide_worker.stages.deliver import RestRow

log = logging.getLogger(__name__)

_WATCH_SECONDS = 600.0
_CHUNK = 4096
_encode = msgspec.json.Encoder().encode


def settle(runtime: Runtime, job: Held) -> Move | None:
    """Closes a job, retries what is missing, or writes the outcome of what never got one."""
    if job.number("segments_left"):
        return Move(stage=Stage.SETTLE, after=_WATCH_SECONDS)
    missing = runtime.ledger.unsettled(job.batch_id, runtime.ledger.rows(job))
    if missing is None:
        _close(runtime, job, None)
        return None
    verdict = _verdict(job)
    if verdict is None:
        log.info("job %s: %d requests run again", job.fields["id"], len(missing))
        _close(runtime, job, missing)
        return None
    runtime.ledger.segment(job, "rest", _write_rest(runtime, job, missing, *verdict))
    return None


def _close(runtime: Runtime, job: Held, retry: Rows | None) -> None:
    if (state := runtime.ledger.close(job, retry=retry)) is not None:
        log.info("batch %s is %s", job.batch_id, state)


def _verdict(job: Held) -> tuple[ResultStatus, ResultError] | None:
    """What becomes of requests without a result; None if they may run again."""
    error = msgspec.json.decode(job.fields["error"], type=ResultError) if job.fields.get("error") else None
    if job.batch["cancel"] == "1":
        return ResultStatus.CANCELLED, ResultError(reason="CANCELLED", message="the batch was cancelled")
    if job.number("refused"):
        return ResultStatus.FAILED, error or ResultError(reason="REFUSED", message="the provider refused the job")
    if job.number("attempt") < int(job.batch["max_attempts"]):
        return None
    match JobState(job.fields["state"]):
        case JobState.EXPIRED:
            return ResultStatus.EXPIRED, ResultError(
                reason="EXPIRED", message="the provider did not answer before the job expired"
            )
        case JobState.CANCELLED:
            return ResultStatus.CANCELLED, ResultError(
                reason="CANCELLED", message="the job was cancelled at the provider"
            )
        case _:
            return ResultStatus.FAILED, error or ResultError(
                reason="MISSING", message="the provider's output has no row for this request"
            )


def _write_rest(runtime: Runtime, job: Held, missing: Rows, status: ResultStatus, error: ResultError) -> list[int]:
    """Writes a row for each request without one; returns where its segments end."""
    settings = runtime.settings
    reader = RequestReader(runtime.spool, job.batch_id)
    cutter = SegmentCutter(max_bytes=settings.segment_bytes, max_rows=settings.segment_rows)
    with runtime.spool.write(BatchFiles(job.batch_id).rest(job.number("number"))) as file:
        sink = SegmentedWriter(file, cutter, runtime.clock.keeper(job))
        ordinals = iter(missing)
        while chunk := list(itertools.islice(ordinals, _CHUNK)):
            lines = (
                _encode(RestRow(wire_key(job.batch_id, ordinal, line.key), status, error)) + b"\n"
                for ordinal, line in reader.keys(chunk).items()
            )
            cast("IO[bytes]", sink).write(b"".join(lines))
    return cutter.finish()
