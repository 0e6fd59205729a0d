"""collect: finds the segments of a job's output, where it lies or in the spool.

Output that the provider can read by ranges stays there. Any other is streamed into the spool, and its segments are
found as the bytes pass. It is stored in pieces, and the segments of a piece are delivered as soon as it is complete.
A run that comes after one that died begins behind the last piece that was put on the clock, whatever the settings are
by then.

What was downloaded is believed only if it has as many rows as the job says are done. Anything else that came in its
place is paid output not had: it is asked for again, for a while.
"""

from __future__ import annotations

import logging
from typing import IO, cast

from lowtide.protocol import BatchFiles, Queue, Stage
from lowtide_worker.crashpoints import reach
from lowtide_worker.output import (
    DownloadCheck,
    IncompleteOutput,
    Piece,
    PieceWriter,
    SegmentCutter,
    encoded_parts,
    even_ends,
)
from lowtide_worker.providers import Missing, Output, Part, Provider, ProviderError
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Done, Held, Move, Superseded, encoded_error

log = logging.getLogger(__name__)


def collect(runtime: Runtime, job: Held) -> Move | Done:
    """Puts the segments of an ended job's output on the clock."""
    provider = runtime.provider(job.batch["provider"])
    output = Output(
        job=job.fields["name"], location=job.fields["output"], key=job.batch.get("key_column") or Output.key
    )
    reach("collect.before-download")
    runtime.clock.check(job)
    try:
        parts = provider.parts(output)
        segments = _download(runtime, provider, job, output) if parts is None else _in_place(runtime, job, parts)
    except Missing as missing:
        log.warning("job %s: its output is gone: %s", job.fields["id"], missing)
        return _without(missing)
    except ProviderError as error:
        if _given_up(runtime, job):
            log.error("job %s: its output cannot be had: %s", job.fields["id"], error)  # noqa: TRY400 - no more in it
            return _without(error)
        if not isinstance(error, IncompleteOutput):
            raise
        log.warning("job %s: %s", job.fields["id"], error)
        since = _doubted(job) or job.now()
        return Move(
            stage=Stage.COLLECT,
            after=runtime.retry_backoff.seconds(job.number("doubts")),
            fields={"doubted": since, "doubts": job.number("doubts") + 1, "problem": str(error)},
        )
    return Done({"state": job.fields["state"], "segments": segments}, wakes=(Queue.RESULTS, Queue.JOBS))


def _without(error: ProviderError) -> Move:
    return Move(stage=Stage.SETTLE, fields={"error": encoded_error(error.error), "collected": ""})


def _doubted(job: Held) -> float:
    """When its output was first seen to be something else, in Unix seconds; 0 where it was not."""
    return float(job.fields.get("doubted") or 0)


def _given_up(runtime: Runtime, job: Held) -> bool:
    """Whether nobody waits any more for output that cannot be had: the batch is cancelled, or past its deadline."""
    settings = runtime.settings
    if job.now() - float(job.fields["ended"]) <= settings.output_grace_seconds:
        return False
    over = float(job.batch["created"]) + settings.batch_deadline_seconds + settings.output_grace_seconds
    return job.batch["cancel"] == "1" or job.now() > over


def _expected(runtime: Runtime, job: Held) -> int:
    """Rows that the output must have to be believed; 0 where it is taken as it is, having been odd for too long."""
    if (since := _doubted(job)) and job.now() - since > runtime.settings.output_grace_seconds:
        log.warning("job %s: its output is taken as it is", job.fields["id"])
        return 0
    return max(1, job.number("done_requests"))


def _in_place(runtime: Runtime, job: Held, parts: list[Part]) -> int:
    """Puts the segments of output that stays where it is on the clock, all parts being counted as one file."""
    ends = even_ends(parts, runtime.settings.segment_bytes)
    runtime.clock.keep(job, {"parts": encoded_parts(parts)})
    runtime.ledger.segment(job, "output", ends)
    reach("collect.after-segments")
    return len(ends)


def _download(runtime: Runtime, provider: Provider, job: Held, output: Output) -> int:
    """Brings the output into the spool, each piece at once on the clock; returns the number of segments."""
    settings = runtime.settings
    files, number = BatchFiles(job.batch_id), job.number("number")

    def name(piece: int) -> str:
        # With the token, so that no worker that was taken for dead writes to what another one has put on the clock.
        return f"{job.token}-{piece}"

    def release(piece: Piece) -> None:
        reach("collect.after-piece-complete")
        more = None if piece.last else piece.collected
        if piece.last and _doubted(job):
            runtime.clock.keep(job, {"problem": ""})
        try:
            runtime.ledger.segment(job, "output", piece.ends, piece=name(piece.number), collected=more)
        except Superseded:
            # Nobody knows of it, and whoever cleans up may have been here.
            runtime.spool.delete(files.output(number, name(piece.number)))
            raise
        reach("collect.after-segments")
        if not piece.last:
            runtime.wake(Queue.RESULTS)

    with PieceWriter(
        SegmentCutter(max_bytes=settings.segment_bytes, max_rows=settings.segment_rows),
        opened=lambda piece: runtime.spool.write(files.output(number, name(piece))),
        release=release,
        keep=runtime.clock.keeper(job),
        collected=job.number("collected"),
    ) as pieces:
        if expected := _expected(runtime, job):
            check = DownloadCheck(pieces.write, expected=expected)
            provider.download(output, cast("IO[bytes]", check))
            check.finish()
        else:
            provider.download(output, cast("IO[bytes]", pieces))
        reach("collect.before-output-complete")
        return pieces.finish()
