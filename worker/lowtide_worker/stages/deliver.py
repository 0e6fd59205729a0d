"""deliver: turns one segment of output into stored results; `hand_over` then gives them to the batch's handler.

Rows are joined with requests by key, never by position. The first final row of a request becomes its result. A row
whose key belongs to no request of the job goes to the quarantine, with the reason.
"""

from __future__ import annotations

import logging
import struct
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

import msgspec

from lowtide.errors import SpoolError
from lowtide.models import ResultError, Usage
from lowtide.protocol import BatchFiles, JobRecord, Queue, other_models, split_job_id
from lowtide.protocol.file_parts import Range
from lowtide.spool import SegmentPlaces, line_ends
from lowtide.states import ResultStatus
from lowtide.text import counted, on_one_line
from lowtide_worker.bundling import by_batch
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.output import (
    MALFORMED,
    Joined,
    QuarantinedRow,
)
from lowtide_worker.partial_answers import write_partial_answers
from lowtide_worker.providers import NO_RESPONSE, Missing, ProviderError, without_line_ends
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.collect import given_up, grace_is_over
from lowtide_worker.stages.hand_over import Stored, hand_over
from lowtide_worker.stages.joined_rows import LostRowsError, join_rows, written_in_place
from lowtide_worker.stages.segment_rows import day_of_rows, is_gone, is_rest, read_rows
from lowtide_worker.stages.tallies import DecidedRows, tally_of
from lowtide_worker.state import (
    STRANGER_BYTES,
    BundledBatch,
    Done,
    HeldSegment,
    SegmentMove,
    SegmentRows,
    Share,
    Tally,
)

log = logging.getLogger(__name__)

_MAX_ERROR_CHARS = 4000
_FILLS_PER_WINDOW = 8
_LINES_AT_ONCE = 500
_MOST_SPAN = 1 << 18
"""Most ordinals that the index of a job with gaps spans, unless the job has enough of them: it has 8 bytes for each."""
_MOST_GAPS = 64
"""Most ordinals of such an index for each request."""
_ORDINAL = struct.Struct("<I")


class _ResultLine(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A stored result: `lowtide.Result` with the response passed through as the provider's own bytes."""

    key: str
    status: ResultStatus
    response: msgspec.Raw
    error: ResultError | None
    usage: Usage | None
    metadata: msgspec.Raw
    attempts: int
    cost: int | None
    batch_id: str = ""
    """Its batch, in the files of a bundle; else the file's own batch."""
    labels: Mapping[str, str] = {}


_encoder = msgspec.json.Encoder()
_encode, _encode_lines = _encoder.encode, _encoder.encode_lines


def deliver(runtime: Runtime, segment: HeldSegment) -> SegmentMove | Done:
    """Stores a segment's results unless an earlier run has stored them, then hands them over."""
    try:
        stored = _stored_before(runtime, segment) if segment.record.stored else _store(runtime, segment)
    except LostRowsError as lost:
        log.error("%s: %s", segment.member, lost, extra=Event.BATCH_LOST.extra)  # noqa: TRY400 - the trace says nothing more
        runtime.ledger.recollect(segment, from_provider=False, shares=_granted_shares(runtime, segment))
        return Done({"lost": 1}, wakes=(Queue.RESULTS, Queue.JOBS))
    except SpoolError:
        if not is_gone(runtime, segment):
            raise
        log.warning(
            "%s: its bytes are missing from the spool and will be collected again",
            segment.member,
            extra=Event.SEGMENT_COLLECTED_AGAIN.extra,
        )
        runtime.ledger.recollect(segment, from_provider=not is_rest(segment), shares=_granted_shares(runtime, segment))
        return Done({"gone": 1}, wakes=(Queue.RESULTS, Queue.JOBS))
    except ProviderError as error:
        if not isinstance(error, Missing) and not given_up(runtime, segment, segment.job):
            raise
        # The output is gone or was written over: its job looks again what is there. After the grace, the requests that
        # were granted to this segment, but not stored, run again.
        log.warning("%s: its output is missing: %s", segment.member, error, extra=Event.OUTPUT_GONE.extra)
        again = isinstance(error, Missing) and not grace_is_over(runtime, segment.job, segment.now())
        runtime.ledger.recollect(segment, from_provider=again, shares=_granted_shares(runtime, segment))
        return Done({"gone": 1}, wakes=(Queue.RESULTS, Queue.JOBS))
    if stored.handler_waits:
        return hand_over(runtime, segment, stored)
    return Done(stored.counts, wakes=stored.wakes)


def _stored_before(runtime: Runtime, segment: HeldSegment) -> Stored:
    return Stored({}, handler_waits=bool(segment.batch.on_result), wakes=_wakes(runtime, segment))


def _store(runtime: Runtime, segment: HeldSegment) -> Stored:
    """Writes and counts the results of a segment: read, join, grant, write, record."""
    job = segment.job
    rows, malformed = read_rows(runtime, segment)
    joined, foreign = join_rows(runtime, segment, rows)
    final, again = _divided(joined, is_last_attempt=job.attempt >= segment.batch.max_attempts)
    reach("deliver.before-grant")
    batches = _batches(runtime, segment)
    wanted = SegmentRows(
        [item.ordinal for item in final], [item.ordinal for item in again], [_digest(odd) for odd in foreign]
    )
    if batches:
        granted = runtime.bundles.grant(segment, wanted, _shares(batches, wanted.final))
    else:
        granted = runtime.ledger.grant(segment, wanted)
    reach("deliver.after-grant")
    decided = DecidedRows.of(final, again, [odd.row for odd in foreign if odd.row is not None], granted)
    results = decided.results
    quarantined = malformed + foreign
    runtime.clock.check(segment)
    with written_in_place(runtime, segment):
        ranges, places = _write_results(runtime, segment, results, batches)
        _write_quarantine(runtime, segment, quarantined)
        _write_partial(runtime, segment, [item for item in again if item.outcome.continuation])
    found = tally_of(
        decided,
        segment.batch,
        quarantined=len(quarantined),
        day=day_of_rows(segment),
        batches=batches,
        ranges=ranges,
        places=places,
        budgets=runtime.settings.budgets,
    )
    handler_waits = bool(segment.batch.on_result and results)
    reach("deliver.before-record")
    left = runtime.ledger.record(segment, found, handler_waits=handler_waits)
    reach("deliver.after-record")
    others = _warn_of_others(segment, found)
    shown = {name: count for name, count in found.counts.items() if name not in Usage.__struct_fields__}
    return Stored(shown | {"left": left} | others, handler_waits=handler_waits, wakes=_wakes(runtime, segment, left))


def _warn_of_others(segment: HeldSegment, found: Tally) -> dict[str, int]:
    """The models that gave results without being asked for. Each is logged when the batch first gets such a result."""
    asked = segment.batch.model
    others = other_models(asked, found.models)
    for name in others.keys() - segment.batch.models.keys():
        log.warning(
            "batch %s asked for %s and is answered by %s",
            *(segment.batch_id, asked, on_one_line(name)),
            extra=Event.BATCH_OTHER_MODEL.extra,
        )
    return {f"answered by {name}": count for name, count in others.items()}


def _wakes(runtime: Runtime, segment: HeldSegment, left: int | None = None) -> tuple[Queue, ...]:
    """Queues to fill now. `left` is how many of the job's segments are still to be stored, if that is known.

    After its last segment, a job can be settled. Now and then, the queue is filled with more segments.
    """
    if left == 0:
        return (Queue.JOBS,)
    every = max(1, runtime.settings.queue_window // _FILLS_PER_WINDOW)
    return (Queue.RESULTS,) if segment.record.number % every == 0 else ()


def _digest(odd: QuarantinedRow) -> bytes:
    """A name for a row that belongs to no request, which is the same whenever it comes."""
    return blake2b(odd.line, digest_size=STRANGER_BYTES).digest()


# ---- bundles


def _batches(runtime: Runtime, segment: HeldSegment) -> Sequence[BundledBatch]:
    """The batches of the bundle that the segment is of; none for another batch."""
    batch = segment.batch
    return runtime.batches_of(segment.batch_id, batch.bundled, batch.total) if batch.bundled else ()


def _shares(batches: Sequence[BundledBatch], ordinals: Iterable[int]) -> list[Share]:
    """The shares of the batches that have some of these requests; none outside a bundle."""
    if not batches:
        return []
    firsts = [batch.first for batch in batches]
    places = sorted({bisect_right(firsts, ordinal) - 1 for ordinal in ordinals})
    return [Share(batches[place].id, batches[place].first, batches[place].last) for place in places]


def _granted_shares(runtime: Runtime, segment: HeldSegment) -> list[Share]:
    """The shares of the batches whose requests were granted to a segment."""
    granted = [ordinal for (ordinal,) in _ORDINAL.iter_unpack(segment.record.ordinals or b"")]
    return _shares(_batches(runtime, segment), granted) if granted else []


# ---- write


def _divided(joined: list[Joined], *, is_last_attempt: bool) -> tuple[list[Joined], list[Joined]]:
    """The rows that end their request, and those whose request runs again."""
    again = [item for item in joined if item.outcome.retryable]
    if not again:
        return joined, again
    final = [item for item in joined if not item.outcome.retryable]
    if is_last_attempt:
        # To continue an answer takes no attempt. Where one request has several rows, an answer goes before a failure.
        final += [item for item in again if not item.outcome.continuation]
        again = [item for item in again if item.outcome.continuation]
    return final, again


def _write_results(
    runtime: Runtime, segment: HeldSegment, results: Sequence[Joined], batches: Sequence[BundledBatch]
) -> tuple[dict[str, Range], list[tuple[int, bytes]]]:
    """Writes the results of a segment; returns where those of each batch of a bundle are, and where each result is."""
    name = BatchFiles(segment.batch_id).result(_job_number(segment), segment.record.number)
    if not results:
        # A Redis that was restored from a backup may have granted other results to this segment before.
        if runtime.spool.exists(name):
            runtime.spool.delete(name)
        return {}, []
    attempts = segment.job.attempt + segment.job.losses + segment.job.continuations
    ranges: dict[str, Range] = {}
    places = SegmentPlaces(segment.record.number)
    with runtime.spool.write(name) as file:
        if batches:
            start = 0
            for batch, its_own in by_batch(results, batches):
                block, ends = _block(its_own, attempts, batch)
                file.write(block)
                places.add([item.ordinal for item in its_own], ends)
                ranges[batch.id] = (_job_number(segment), segment.record.number, start, start + len(block))
                start += len(block)
        else:
            for first in range(0, len(results), _LINES_AT_ONCE):
                some = results[first : first + _LINES_AT_ONCE]
                block, ends = _block(some, attempts)
                file.write(block)
                places.add([item.ordinal for item in some], ends)
    if _is_scattered(segment.job):
        # A lookup reads the few files of such a job.
        return ranges, []
    return ranges, [(ordinal - segment.job.first, entries) for ordinal, entries in places.runs()]


def _is_scattered(job: JobRecord) -> bool:
    """Whether a job has so few requests of so large a range that the index of its results would be empty space."""
    span = job.last - job.first
    return job.sparse and span > max(_MOST_SPAN, _MOST_GAPS * job.requests)


def _block(results: Sequence[Joined], attempts: int, batch: BundledBatch | None = None) -> tuple[bytes, Sequence[int]]:
    """The lines of results, with their newlines, and the offset behind each newline."""
    lines = [_result_line(item, attempts, batch) for item in results]
    block: bytes = _encode_lines(lines)
    ends = line_ends(block)
    if len(ends) != len(lines):
        # A response passes as its bytes came, and JSON may have line ends between its parts.
        block = b"".join(without_line_ends(_encode(line)) + b"\n" for line in lines)
        ends = line_ends(block)
    return block, ends


def _write_partial(runtime: Runtime, segment: HeldSegment, incomplete: Sequence[Joined]) -> None:
    """Writes the answers that are not complete, for the job that continues them."""
    if not incomplete:
        return
    place = segment.batch_id, _job_number(segment), segment.record.number
    reach("deliver.before-partial")
    digest = write_partial_answers(runtime.spool, *place, incomplete)
    reach("deliver.after-partial")
    # record.lua notes it in the job: settle must not read what only a lost state of Redis has written.
    runtime.clock.keep(segment, {"partial": digest})


def _write_quarantine(runtime: Runtime, segment: HeldSegment, odd: Sequence[QuarantinedRow]) -> None:
    if not odd:
        return
    name = BatchFiles(segment.batch_id).quarantined(_job_number(segment), segment.record.number)
    with runtime.spool.write(name) as file:
        file.write(_encode_lines([{"reason": o.reason, "line": o.line.decode(errors="replace")} for o in odd]))
    log.warning(
        "job %s: %s quarantined", segment.record.job_id, counted(len(odd), "row"), extra=Event.ROWS_QUARANTINED.extra
    )


def _job_number(segment: HeldSegment) -> int:
    return split_job_id(segment.record.job_id)[1]


def _result_line(item: Joined, attempts: int, batch: BundledBatch | None = None) -> _ResultLine:
    request, response, outcome = item.request, item.response, item.outcome
    error, usage, cost = outcome.error, outcome.usage, item.cost
    if error is not None:
        error = error.shortened(_MAX_ERROR_CHARS)
        # An answer that an earlier job has begun is readable.
        if error.reason == MALFORMED and item.earlier is None:
            response = NO_RESPONSE
    if item.earlier is not None or item.earlier_cost != 0:
        usage, cost = item.usage, item.whole_cost
    if batch is None:
        return _ResultLine(request.key, outcome.status, response, error, usage, request.metadata, attempts, cost)
    line = request.key, outcome.status, response, error, usage, request.metadata, attempts, cost
    return _ResultLine(*line, batch.id, batch.labels)
