"""settle: once a job's last segment is stored, decides about the requests that have no result yet.

They run again in another job while they have attempts left, with requests of other jobs of their batch where these may
share one. Those whose answers are not complete run again in a job that continues them. Else Lowtide writes their
outcome itself, as one more file of segments, so that it is stored, counted and delivered like any other result.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, cast

import msgspec
from msgspec.structs import replace

from lowtide.errors import OutsideRoot
from lowtide.models import REQUESTS_LOST, ResultError
from lowtide.protocol import BatchFiles, Queue, Stage
from lowtide.spool import KEPT_ENTRIES, DamagedBlob
from lowtide.states import JobState, Mode, ResultStatus
from lowtide.text import counted
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.intents import forgotten_jobs, with_numbers
from lowtide_worker.output import RestRow, SegmentCutter, SegmentedWriter, retryable
from lowtide_worker.partial_answers import PartialAnswers
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.late_rows import late_rows
from lowtide_worker.stages.lost_requests import end_bundled, not_whole, requests_lost
from lowtide_worker.stages.pools import pooled, pooled_answers
from lowtide_worker.state import (
    Done,
    HeldJob,
    JobMove,
    Move,
    Ordinals,
    OutdatedError,
    Retry,
    Superseded,
    UnbalancedError,
    Unstored,
    parted,
    segments_of_jobs,
)

log = logging.getLogger(__name__)

_WATCH_SECONDS = 600.0
_BALANCE_SECONDS = 1.0
_CHUNK = 4096
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
    try:
        partial = _partial_answers(runtime, job)
    except DamagedBlob as damaged:
        if verdict := _verdict_of_batch(runtime, job):
            return _end_damaged(runtime, job, missing, verdict, damaged)
        if lost := _lost(runtime, job):
            return _end_without_results(runtime, job, len(missing), _LOST, lost)
        raise
    incomplete, others = parted(missing, partial.ordinals()) if len(partial) else (None, missing)
    if others and (verdict := _verdict(runtime, job)):
        return _end(runtime, job, others, verdict)
    if incomplete and (verdict := _verdict_of_batch(runtime, job)):
        return _end(runtime, job, incomplete, verdict, partial)
    log.info(
        "job %s: %s again",
        job.record.id,
        counted(len(missing), "request runs", "requests run"),
        extra=Event.REQUESTS_AGAIN.extra,
    )
    retries = []
    if others:
        retry = Retry.of(job.record, others)
        # A job that was lost as a whole costs its requests no attempt; such losses have a limit of their own.
        retry = retry.after_loss() if _is_lost(job) else retry.again()
        retries.append(pooled(runtime, job, retry.sent_by_file() if _has_lost_keys(job, len(missing)) else retry))
    if incomplete:
        index = _write_index(runtime, job, partial)
        goes_on = [Retry.of(job.record, some).continued(index) for some in _fitting(runtime, job, incomplete, partial)]
        retries += [pooled_answers(runtime, job, goes_on[0], partial)] if len(goes_on) == 1 else goes_on
    return _close(runtime, job, retries)


def _partial_answers(runtime: Runtime, job: HeldJob) -> PartialAnswers:
    """The answers that came with the job and are not complete."""
    found = (one.partition(":") for one in (job.record.partial_segments or "").split())
    segments = {int(number): digest for number, _, digest in found}
    return PartialAnswers.of_segments(runtime.spool, job.batch_id, job.record.number, segments)


def _write_index(runtime: Runtime, job: HeldJob, partial: PartialAnswers) -> str:
    reach("settle.before-index")
    runtime.clock.check(job)
    name = partial.write(job.record.number)
    reach("settle.after-index")
    return name


def _fitting(runtime: Runtime, job: HeldJob, incomplete: Ordinals, partial: PartialAnswers) -> list[Ordinals]:
    """The requests whose answers go on, as jobs within the provider's limit of bytes: tokens make lines longer."""
    most = runtime.settings.max_job_bytes(job.batch.mode, job.batch.provider)
    reader = runtime.requests.of(job.batch)
    start, end = reader.byte_range(incomplete.first, incomplete.last)
    tokens = dict(partial.token_bytes())
    if end - start + sum(tokens.values()) <= most:
        return [incomplete]
    wanted, jobs, filled = set(incomplete), [list[int]()], 0
    for ordinal, (size, _) in enumerate(reader.sizes()):
        if ordinal in wanted:
            size += tokens.get(ordinal, 0)
            if jobs[-1] and filled + size > most:
                jobs.append([])
                filled = 0
            jobs[-1].append(ordinal)
            filled += size
    return [some for chosen in jobs if (some := parted(incomplete, chosen)[0])]


def _end(
    runtime: Runtime,
    job: HeldJob,
    missing: Ordinals,
    verdict: tuple[ResultStatus, ResultError],
    partial: PartialAnswers | None = None,
) -> JobMove | Done:
    """Writes the outcome of requests, with the answers that have begun: by default those that the job continued."""
    try:
        if job.batch.problem:
            # Where results have no place, those that are written now have none either.
            runtime.spool.exists(_next_results(job))
        return _end_with(runtime, job, missing, verdict, partial or _continued_answers(runtime, job))
    except DamagedBlob as damaged:
        return _end_damaged(runtime, job, missing, verdict, damaged)


def _continued_answers(runtime: Runtime, job: HeldJob) -> PartialAnswers:
    """The answers that the job continued."""
    if job.record.partial:
        return PartialAnswers.read(runtime.spool, job.batch_id, job.record.partial)
    return PartialAnswers(runtime.spool, job.batch_id)


def _end_damaged(
    runtime: Runtime,
    job: HeldJob,
    missing: Ordinals,
    verdict: tuple[ResultStatus, ResultError],
    damaged: DamagedBlob,
) -> JobMove | Done:
    """Ends requests although a file is damaged.

    Where only the answers that have begun are lost, the other batches of a bundle lose nothing.
    """
    lost = _lost(runtime, job)
    if lost or not job.batch.bundled:
        return _end_without_results(runtime, job, len(missing), verdict, lost or str(damaged))
    told = counted(len(missing), "request ends", "requests end")
    error = requests_lost(runtime, job, str(damaged), f"{told} without the answers that have begun")
    log.error("job %s: %s", job.record.id, error.message, extra=Event.BATCH_LOST.extra)
    try:
        return _end_with(runtime, job, missing, verdict, None)
    except DamagedBlob as another:
        return _end_without_results(runtime, job, len(missing), verdict, str(another))


def _end_with(
    runtime: Runtime,
    job: HeldJob,
    missing: Ordinals,
    verdict: tuple[ResultStatus, ResultError],
    partial: PartialAnswers | None,
) -> JobMove | Done:
    """Writes the outcome of requests with these answers, which have begun; None: they are lost."""
    # With the token in its name: a worker that was presumed dead must not change what another has put on the clock.
    piece = str(job.token)
    name = BatchFiles(job.batch_id).rest(job.record.number, piece)
    runtime.clock.check(job)
    ends = _write_rest(runtime, job, name, missing, verdict, partial)
    reach("settle.after-rest-written")
    try:
        runtime.ledger.segment(job, "rest", ends, piece=piece)
    except Superseded:
        runtime.spool.delete(name)
        raise
    reach("settle.after-rest-segments")
    return Done({"state": job.record.state, str(verdict[0]): len(missing)}, wakes=(Queue.RESULTS,))


def _lost(runtime: Runtime, job: HeldJob) -> str | None:
    """The problem of the file without which no result of the job's requests can be stored; None where all are whole."""
    name = runtime.requests.of(job.batch).damaged(job.batch.total, lines=False, groups=False)
    if name is None and job.batch.problem:
        try:
            runtime.spool.exists(_next_results(job))
        except DamagedBlob as damaged:
            return str(damaged)
    return not_whole(name) if name else None


def _next_results(job: HeldJob) -> str:
    """The file of the results that the job's next segment would have."""
    return BatchFiles(job.batch_id).result(job.record.number, job.record.segments)


def _end_without_results(
    runtime: Runtime, job: HeldJob, count: int, verdict: tuple[ResultStatus, ResultError], problem: str
) -> JobMove | Done:
    """Closes a job, `count` of whose requests end without stored results."""
    told = counted(count, "request has no result", "requests have no results")
    error = requests_lost(runtime, job, problem, told)
    log.error("job %s: %s", job.record.id, error.message, extra=Event.BATCH_LOST.extra)
    if job.batch.bundled:
        end_bundled(runtime, job, error)
        return _close(runtime, job)
    return _close(runtime, job, unstored=Unstored(verdict[0], count, error))


def _close(
    runtime: Runtime, job: HeldJob, retries: Sequence[Retry] = (), unstored: Unstored | None = None
) -> JobMove | Done:
    _write_result_index(runtime, job)
    try:
        forgotten = forgotten_jobs(runtime, job) if retries else {}
    except DamagedBlob as damaged:
        # Something else has the place of the intents, so no job can be created any more.
        return _end_without_results(runtime, job, sum(len(retry.requests) for retry in retries), _LOST, str(damaged))
    retries = with_numbers(retries, forgotten)
    reach("settle.before-close")
    try:
        state = runtime.ledger.close(
            job,
            tidy=lambda: _tidy(runtime, job.batch_id),
            retries=retries,
            beyond=max(forgotten, default=0),
            unstored=unstored,
        )
    except OutdatedError:
        # Another job of the batch was closed meanwhile: its answers are put together with these once more.
        return Move(stage=Stage.SETTLE)
    except UnbalancedError:
        if job.batch.bundle is None:
            raise
        # A segment of the bundle has been granted results of this batch that are not counted yet.
        return Move(stage=Stage.SETTLE, after=_BALANCE_SECONDS)
    reach("settle.after-close")
    if state is not None:
        log.info("batch %s is %s", job.batch_id, state, extra=Event.BATCH_FINISHED.extra)
    again = sum(len(retry.requests) for retry in retries)
    facts = {"state": job.record.state, "batch": state or "running", "again": again}
    return Done(facts, wakes=(Queue.JOBS,))


def _write_result_index(runtime: Runtime, job: HeldJob) -> None:
    """Copies the index of a large job's results from the store, which drops it when the job is closed."""
    if job.record.last - job.record.first <= KEPT_ENTRIES or not (index := runtime.ledger.result_index(job)):
        return
    runtime.clock.check(job)
    # Where something else has its place, a lookup reads the results themselves.
    with suppress(DamagedBlob), runtime.spool.write(BatchFiles(job.batch_id).result_index(job.record.number)) as file:
        file.write(index)


def _tidy(runtime: Runtime, batch_id: str) -> None:
    """Removes results that do not belong to the batch.

    They are of segments that were given up, or of segments that only a later state of Redis knew: it went back in time,
    and the batch was then cut into other jobs and segments.
    """
    files = BatchFiles(batch_id)
    # The list comes first: Redis knows every segment that writes after it.
    try:
        names = runtime.spool.names(files.results)
    except DamagedBlob:
        # Something else has the place of the folder: what is in it is not Lowtide's.
        return
    segments = segments_of_jobs(runtime.redis, batch_id)
    for name in names:
        place = files.segment_of(name)
        if place is None:
            continue
        job, number = place
        count, given_up = segments.get(job, (0, set()))
        if number >= count or number in given_up:
            log.warning(
                "batch %s: %s is not a result of this batch and is removed",
                *(batch_id, name),
                extra=Event.RESULTS_REMOVED.extra,
            )
            # A link is not followed, and goes with the folder of the batch.
            with suppress(OutsideRoot):
                runtime.spool.delete(name)


def _is_lost(job: HeldJob) -> bool:
    """Whether the job as a whole has ended without success."""
    return job.record.state not in (JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED)


def _has_lost_keys(job: HeldJob, missing: int) -> bool:
    """Whether an inline job gave no rows under the keys of some requests: such keys are not to be trusted twice."""
    is_inline = job.batch.mode is Mode.INLINE and not _is_lost(job)
    return is_inline and missing > sum(job.record.retried_by.values())


def _verdict(runtime: Runtime, job: HeldJob) -> tuple[ResultStatus, ResultError] | None:
    """The outcome of the requests without an answer; None if they may run again."""
    if job.batch.cancel:
        return _CANCELLED
    error, state = job.record.error, job.record.state
    if job.record.refused or (state is JobState.FAILED and error is not None and not retryable(error)):
        return ResultStatus.FAILED, error or ResultError(reason="FAILED", message="the provider refused the job")
    if verdict := _verdict_of_batch(runtime, job):
        return verdict
    spent = (
        job.record.losses >= runtime.settings.max_job_losses
        if _is_lost(job)
        else job.record.attempt >= job.batch.max_attempts
    )
    if not spent:
        return None
    # A job past its deadline is cancelled by Lowtide: its requests have expired, the user did not cancel them.
    if state is JobState.EXPIRED or (state is JobState.CANCELLED and job.record.cancel_sent):
        return _EXPIRED
    if state is JobState.CANCELLED:
        message = "the job was cancelled at the provider"
        return ResultStatus.CANCELLED, ResultError(reason="CANCELLED", message=message)
    missing = ResultError(reason="MISSING", message="the provider's output has no row for this request")
    return ResultStatus.FAILED, error or missing


def _verdict_of_batch(runtime: Runtime, job: HeldJob) -> tuple[ResultStatus, ResultError] | None:
    """The outcome of all requests without a result, where the batch gets no more jobs; None where it does."""
    if job.batch.cancel:
        return _CANCELLED
    if job.age_of(runtime.settings.deadline_of(job.batch)) <= 0:
        return None
    if job.record.name is None and job.record.error is not None:
        # It was never created: the reason is what it waited for.
        return ResultStatus.EXPIRED, job.record.error
    return _EXPIRED


_CANCELLED = ResultStatus.CANCELLED, ResultError(reason="CANCELLED", message="the batch was cancelled")
_LOST = ResultStatus.FAILED, ResultError(reason=REQUESTS_LOST, message="the files of the batch are lost")
_EXPIRED = ResultStatus.EXPIRED, ResultError(reason="EXPIRED", message="the provider did not answer in time")


def _write_rest(
    runtime: Runtime,
    job: HeldJob,
    name: str,
    missing: Ordinals,
    verdict: tuple[ResultStatus, ResultError],
    partial: PartialAnswers | None,
) -> list[int]:
    """Writes a row for each request without a result; returns the offsets at which the segments end.

    - `partial`: the answers that have begun; None: they are lost, and their cost is unknown.
    """
    earlier_cost = None if partial is None else 0
    settings = runtime.settings
    reader = runtime.requests.of(job.batch)
    cutter = SegmentCutter(max_bytes=settings.segment_bytes, max_rows=settings.segment_rows)
    with runtime.spool.write(name) as file:
        sink = SegmentedWriter(file, cutter, runtime.clock.keeper(job))
        ordinals = iter(missing)
        while chunk := list(itertools.islice(ordinals, _CHUNK)):
            rows = {
                ordinal: RestRow(line.wire, *verdict, earlier_cost=earlier_cost)
                for ordinal, line in reader.keys(chunk).items()
            }
            for answer in partial.find(chunk) if partial else ():
                row = rows[answer.ordinal]
                rows[answer.ordinal] = replace(
                    row, response=answer.response, earlier=answer.usage, earlier_cost=answer.cost
                )
            cast("IO[bytes]", sink).write(b"".join(_encode(row) + b"\n" for row in rows.values()))
    return cutter.finish()
