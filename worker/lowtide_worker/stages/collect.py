"""collect: finds the segments of a job's output, at the provider or in the spool.

Output that the provider can read by ranges stays there. Other output is streamed into the spool, and its segments are
found as the bytes pass. It is stored in pieces, and the segments of a piece are delivered as soon as it is complete.
A run after one that died begins behind the last piece that was put on the clock, whatever the settings are by then.

A download by byte ranges begins there; any other begins at the first byte, and what is stored already is skipped. If
the provider's file has changed since, or the replies contradict each other, it is downloaded again from the first byte,
as one stream. A table has no order, so its rows are delivered only when all are in the spool.

Output is accepted only if it is what the job says: a download must have as many rows as are done, and no file that is
named may be missing or empty. Anything else means that paid output is not there yet: it is fetched again, for a while.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from lowtide.models import REQUESTS_LOST, ResultError
from lowtide.protocol import BatchFiles, Collected, JobRecord, Queue, Stage
from lowtide.protocol.changes import JobChange
from lowtide.spool import DamagedBlob
from lowtide.states import JobState
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.in_place import in_place
from lowtide_worker.output import (
    ChangedOutput,
    DownloadCheck,
    OutputSink,
    Piece,
    PieceWriter,
    SegmentCutter,
    even_ends,
)
from lowtide_worker.providers import IncompleteOutput, Missing, Output, Part, Provider, ProviderError, Refused
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Done, HeldJob, HeldSegment, JobMove, Move, Superseded, bounded, known, restart_collect

log = logging.getLogger(__name__)


def collect(runtime: Runtime, job: HeldJob) -> JobMove | Done:
    """Puts the segments of an ended job's output on the clock."""
    provider = runtime.provider(job.batch.provider)
    output = output_of(runtime, job, rows=_expected(runtime, job))
    reach("collect.before-download")
    runtime.clock.check(job)
    try:
        if in_place(job.batch, job.record):
            provider.confirm(job.batch.sources, known(job.record.ended, "ended"))
        parts = provider.parts(output)
        segments = _download(runtime, provider, job, output) if parts is None else _segment_parts(runtime, job, parts)
    except DamagedBlob as damaged:
        # Something else has the place of the output, such as a link. It is paid, so it is tried until the deadline.
        if not given_up(runtime, job, job.record):
            raise
        runtime.installation.check()
        log.error("job %s: its output has no place: %s", job.record.id, damaged, extra=Event.OUTPUT_GIVEN_UP.extra)  # noqa: TRY400 - the trace says nothing more
        lost = ResultError(reason=REQUESTS_LOST, message=f"the job's output has no place: {damaged}")
        return Move(stage=Stage.SETTLE, fields={"error": bounded(lost), "collected": None})
    except ProviderError as error:
        if isinstance(error, Refused) and error.error.reason == SOURCE_CHANGED:
            log.error("job %s: %s", job.record.id, error, extra=Event.OUTPUT_GIVEN_UP.extra)  # noqa: TRY400 - as below
            return Move(stage=Stage.SETTLE, fields={"refused": True, "error": bounded(error.error), "collected": None})
        if isinstance(error, Missing) and not output.rows:
            log.warning("job %s: its output is missing: %s", job.record.id, error, extra=Event.OUTPUT_GONE.extra)
            return _without(error)
        if given_up(runtime, job, job.record):
            log.error(  # noqa: TRY400 - the trace says nothing more
                "job %s: its output cannot be fetched: %s", job.record.id, error, extra=Event.OUTPUT_GIVEN_UP.extra
            )
            return _without(error)
        if not isinstance(error, (IncompleteOutput, Missing)):
            raise
        log.warning("job %s: %s", job.record.id, error, extra=Event.OUTPUT_INCOMPLETE.extra)
        if isinstance(error, ChangedOutput):
            restart_collect(runtime.redis, job)
        return Move(
            stage=Stage.COLLECT,
            after=runtime.retry_backoff.seconds(job.record.doubts),
            fields={
                "doubted": job.noted(job.record.doubted),
                "doubts": job.record.doubts + 1,
                "problem": str(error),
            },
        )
    return Done({"state": job.record.state, "segments": segments}, wakes=(Queue.RESULTS, Queue.JOBS))


def output_of(runtime: Runtime, job: HeldJob, *, rows: int) -> Output:
    """Returns the output of a job, which must have so many rows at least."""
    return Output(
        job=known(job.record.name, "name"),
        location=known(job.record.output, "output"),
        key=job.batch.key_column or Output.key,
        display_name=runtime.display_name(job.record),
        rows=rows,
    )


SOURCE_CHANGED = "SOURCE_CHANGED"
"""The reason with which a provider refuses a source that is not what it was at submit."""


def _without(error: ProviderError) -> JobMove:
    return Move(stage=Stage.SETTLE, fields={"error": bounded(error.error), "collected": None})


def given_up(runtime: Runtime, held: HeldJob | HeldSegment, job: JobRecord) -> bool:
    """Returns whether to wait no longer for output that cannot be fetched.

    That is so some time after the job's end, if the batch is cancelled or past its deadline.
    """
    settings = runtime.settings
    if 0 <= held.now() - known(job.ended, "ended") <= settings.output_grace_seconds:
        return False
    return held.batch.cancel or held.age_of(settings.deadline_of(held.batch)) > settings.output_grace_seconds


def grace_is_over(runtime: Runtime, job: JobRecord, now: float) -> bool:
    """Returns whether a job's output has not been what the job says for longer than the grace."""
    return job.doubted is not None and now - job.doubted > runtime.settings.output_grace_seconds


def _expected(runtime: Runtime, job: HeldJob) -> int:
    """The rows that the output must have; 0 where it is accepted as it is, because it was odd for too long."""
    if grace_is_over(runtime, job.record, job.now()):
        log.warning("job %s: its output is taken as it is", job.record.id, extra=Event.OUTPUT_ACCEPTED.extra)
        return 0
    # The provider need not count; a job that has succeeded has a row in any case.
    succeeded = job.record.state in (JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED)
    return job.record.done_requests or int(succeeded)


def _segment_parts(runtime: Runtime, job: HeldJob, parts: list[Part]) -> int:
    """Puts the segments of output that stays at the provider on the clock. All parts count as one file."""
    ends = even_ends(parts, runtime.settings.segment_bytes)
    fields: JobChange = {"parts": parts, "problem": None}
    if job.record.segments:
        # Some of it was gone or written over while it was read. That must end some day.
        fields["doubted"] = job.noted(job.record.doubted)
    runtime.clock.keep(job, fields)
    runtime.ledger.segment(job, "output", ends)
    reach("collect.after-segments")
    return len(ends)


def _download(runtime: Runtime, provider: Provider, job: HeldJob, output: Output) -> int:
    """Downloads the output into the spool and puts each piece on the clock; returns the number of segments."""
    settings = runtime.settings
    files, number = BatchFiles(job.batch_id), job.record.number
    resumable = provider.resumable(output)
    collected = (job.record.collected if resumable else None) or Collected()
    check = DownloadCheck(expected=output.rows, rows=collected.rows) if output.rows else None

    def name(piece: int) -> str:
        # With the token, so that no worker that was taken for dead writes to a piece that another has put on the clock.
        return f"{job.token}-{piece}"

    @contextmanager
    def opened(piece: int) -> Iterator[IO[bytes] | DownloadCheck]:
        with runtime.spool.write_working(files.output(number, name(piece))) as file:
            yield check.onto(file) if check else file

    def release(piece: Piece) -> None:
        reach("collect.after-piece-complete")
        so_far = Collected(bytes=piece.collected, rows=check.rows if check else 0, **sink.version._asdict())
        more = None if piece.last else so_far
        if piece.last and job.record.doubted is not None:
            runtime.clock.keep(job, {"problem": None})
        try:
            runtime.ledger.segment(job, "output", piece.ends, piece=name(piece.number), collected=more)
        except Superseded:
            # No record names it, and the job's files may have been cleaned up before.
            runtime.spool.delete(files.output(number, name(piece.number)))
            raise
        reach("collect.after-segments")
        if not piece.last:
            runtime.wake(Queue.RESULTS)

    with PieceWriter(
        SegmentCutter(max_bytes=settings.segment_bytes, max_rows=settings.segment_rows),
        opened=opened,
        release=release,
        keep=runtime.clock.keeper(job),
        collected=collected.bytes,
        in_pieces=resumable,
    ) as pieces:
        sink = OutputSink(pieces, collected, by_ranges=job.record.doubted is None)
        provider.download(output, sink)
        if check:
            check.finish()
        reach("collect.before-output-complete")
        return pieces.finish()
