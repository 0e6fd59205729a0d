"""deliver: turns one segment of output into stored results; `hand_over` then gives them to the batch's handler.

Rows are joined with requests by key, never by position. The first final row of a request becomes its result. A row
whose key belongs to no request of the job goes to the quarantine, with the reason.
"""

from __future__ import annotations

import logging
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from lowtide.errors import SpoolError
from lowtide.models import ResultError, Usage
from lowtide.protocol import BatchFiles, Queue, measures, other_models, split_job_id
from lowtide.protocol.records import Part, Range
from lowtide.spool import RequestReader
from lowtide.states import ResultStatus
from lowtide.text import on_one_line
from lowtide_worker.bundling import BundledBatch, by_batch
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.in_place import in_place, under_wire_keys
from lowtide_worker.output import (
    MALFORMED,
    Joined,
    QuarantinedRow,
    Row,
    join,
    overruled,
    part_ranges,
    provider_rows,
    rest_rows,
    tally,
)
from lowtide_worker.partial_answers import PartialAnswers, continued, not_continued, write_partial_answers
from lowtide_worker.providers import NO_RESPONSE, Missing, Provider, ProviderError, without_line_ends
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.collect import given_up, grace_is_over
from lowtide_worker.stages.hand_over import Stored, hand_over
from lowtide_worker.state import BundledTally, Done, HeldSegment, SegmentMove, Share, Tally

log = logging.getLogger(__name__)

_MAX_ERROR_CHARS = 4000
_TRIES = 3
"""After so many failures, a segment whose file is not in the spool is given up."""
_FILLS_PER_WINDOW = 8
_LINES_AT_ONCE = 500
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
    batch_id: str = ""
    """Its batch, in the files of a bundle; else the file's own batch."""
    labels: Mapping[str, str] = {}


_encoder = msgspec.json.Encoder()
_encode, _encode_lines = _encoder.encode, _encoder.encode_lines


def deliver(runtime: Runtime, segment: HeldSegment) -> SegmentMove | Done:
    """Stores a segment's results unless an earlier run has stored them, then hands them over."""
    try:
        stored = _stored_before(runtime, segment) if segment.record.stored else _store(runtime, segment)
    except SpoolError:
        if not _is_gone(runtime, segment):
            raise
        log.warning(
            "segment %s: its bytes are missing from the spool and will be collected again",
            segment.member,
            extra=Event.SEGMENT_COLLECTED_AGAIN.extra,
        )
        runtime.ledger.recollect(segment, from_provider=not _is_rest(segment), shares=_granted_shares(runtime, segment))
        return Done({"gone": 1}, wakes=(Queue.RESULTS, Queue.JOBS))
    except ProviderError as error:
        if not isinstance(error, Missing) and not given_up(runtime, segment.batch, segment.job, segment.now()):
            raise
        # The output is gone or was written over: its job looks again what is there. After the grace, the requests that
        # were granted to this segment, but not stored, run again.
        log.warning("segment %s: its output is missing: %s", segment.member, error, extra=Event.OUTPUT_GONE.extra)
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
    rows, malformed = _read(runtime, segment)
    joined, foreign = join(
        rows,
        ordinals=range(job.first, job.last),
        reader=RequestReader(runtime.spool, segment.batch_id),
    )
    joined = _with_earlier_answers(runtime, segment, joined)
    final, again = _divided(joined, is_last_attempt=job.attempt >= segment.batch.max_attempts)
    reach("deliver.before-grant")
    ordinals = [item.ordinal for item in final]
    batches = _batches(runtime, segment)
    if batches:
        granted = runtime.bundles.grant(segment, ordinals, _shares(batches, ordinals))
    else:
        granted = runtime.ledger.grant(segment, ordinals)
    reach("deliver.after-grant")
    results = [item for item, is_granted in zip(final, granted, strict=True) if is_granted]
    quarantined = malformed + foreign
    runtime.clock.check(segment)
    ranges = _write_results(runtime, segment, results, batches)
    _write_quarantine(runtime, segment, quarantined)
    _write_partial(runtime, segment, [item for item in again if item.outcome.continuation])
    odd = {"duplicates": len(final) - len(results), "quarantined": len(quarantined)}
    found = tally(rows, results, odd)
    found = replace(
        found,
        totals=_totals(segment, results, found.counts),
        retried=Counter(map(_reason, again)),
        bundled=_bundled(joined, final, again, results, batches, ranges),
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


# ---- read


def _read(runtime: Runtime, segment: HeldSegment) -> tuple[list[Row], list[QuarantinedRow]]:
    """The rows of a segment, judged, and the lines that are no rows."""
    start, end = segment.record.start, segment.record.end
    if _is_rest(segment):
        return rest_rows(runtime.spool.read(_file(segment), start, end)), []
    provider = runtime.provider(segment.batch.provider)
    if segment.job.parts:
        block = _read_parts(provider, segment.job.parts, start, end)
    else:
        block = runtime.spool.read(_file(segment), start, end)
    rows, malformed = provider_rows(provider, block)
    if in_place(segment.batch, segment.job):
        rows = under_wire_keys(rows, runtime.spool, segment.batch_id)
    if outcomes := segment.batch.outcomes:
        rows = [Row(row.key, row.response, overruled(row.outcome, outcomes)) for row in rows]
    return rows, malformed


def _with_earlier_answers(runtime: Runtime, segment: HeldSegment, joined: list[Joined]) -> list[Joined]:
    """The rows with the whole answers as far as they have come, where the job continues answers of earlier jobs."""
    job = segment.job
    if job.partial and not _is_rest(segment):
        begun = PartialAnswers.read(runtime.spool, segment.batch_id, job.partial)
        joined = continued(joined, begun, segment.batch.outcomes)
    if job.continuations >= runtime.settings.max_continuations:
        joined = not_continued(joined, job.continuations)
    return joined


def _read_parts(provider: Provider, parts: Sequence[Part], start: int, end: int) -> bytes:
    """A byte range of output that stays at the provider, all parts being counted as one file."""
    return b"".join(provider.read(*found) for found in part_ranges(parts, start, end))


def _is_rest(segment: HeldSegment) -> bool:
    """Whether settle wrote the segment, for requests that ended without a row."""
    return segment.record.origin == "rest"


def _file(segment: HeldSegment) -> str:
    """The file in the spool that holds a segment's rows."""
    files = BatchFiles(segment.batch_id)
    file = files.rest if _is_rest(segment) else files.output
    return file(_job_number(segment), segment.record.piece or "")


def _is_gone(runtime: Runtime, segment: HeldSegment) -> bool:
    """Whether a segment's bytes have been missing for some tries, from the spool that is ours."""
    if (segment.job.parts and not _is_rest(segment)) or segment.record.failures < _TRIES:
        return False
    # After a power cut, a working file may be there and be too short.
    size = runtime.spool.size(_file(segment))
    if size is not None and size >= segment.record.end:
        return False
    runtime.installation.check()
    return True


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


def _bundled(
    joined: Sequence[Joined],
    final: Sequence[Joined],
    again: Sequence[Joined],
    results: Sequence[Joined],
    batches: Sequence[BundledBatch],
    ranges: Mapping[str, Range],
) -> list[BundledTally]:
    """The counts of each batch of a bundle: of its rows, of those that are final, and of those that became results."""
    if not batches:
        return []
    ends = {batch.id: len(some) for batch, some in by_batch(final, batches)}
    mine: dict[str, list[Joined]] = {batch.id: some for batch, some in by_batch(results, batches)}
    not_yet: dict[str, list[Joined]] = {batch.id: some for batch, some in by_batch(again, batches)}
    tallies = []
    for batch, _ in by_batch(joined, batches):
        got = mine.get(batch.id) or []
        odd = {"duplicates": ends.get(batch.id, 0) - len(got)}
        # A row that comes once more, because the output is collected again, was paid before.
        paid = got + (not_yet.get(batch.id) or [])
        tallies.append(BundledTally.of(batch.id, tally(paid, got, odd), ranges.get(batch.id)))
    return tallies


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
) -> dict[str, Range]:
    """Writes the results of a segment; returns where those of each batch of a bundle are."""
    name = BatchFiles(segment.batch_id).result(_job_number(segment), segment.record.number)
    if not results:
        # A Redis that was restored from a backup may have granted other results to this segment before.
        if runtime.spool.exists(name):
            runtime.spool.delete(name)
        return {}
    attempts = segment.job.attempt + segment.job.losses + segment.job.continuations
    ranges: dict[str, Range] = {}
    with runtime.spool.write(name) as file:
        if batches:
            start = 0
            for batch, its_own in by_batch(results, batches):
                block = _block(its_own, attempts, batch)
                file.write(block)
                ranges[batch.id] = (_job_number(segment), segment.record.number, start, start + len(block))
                start += len(block)
            return ranges
        for first in range(0, len(results), _LINES_AT_ONCE):
            file.write(_block(results[first : first + _LINES_AT_ONCE], attempts))
    return ranges


def _block(results: Sequence[Joined], attempts: int, batch: BundledBatch | None = None) -> bytes:
    """The lines of results, with their newlines."""
    lines = [_result_line(item, attempts, batch) for item in results]
    block: bytes = _encode_lines(lines)
    if block.count(b"\n") != len(lines):
        # A response passes as its bytes came, and JSON may have line ends between its parts.
        block = b"".join(without_line_ends(_encode(line)) + b"\n" for line in lines)
    return block


def _write_partial(runtime: Runtime, segment: HeldSegment, incomplete: Sequence[Joined]) -> None:
    """Writes the answers that are not complete, for the job that continues them."""
    if not incomplete:
        return
    name = BatchFiles(segment.batch_id).partial_answers(_job_number(segment), segment.record.number)
    reach("deliver.before-partial")
    write_partial_answers(runtime.spool, name, incomplete)
    reach("deliver.after-partial")
    # record.lua notes it in the job: settle must not read what only a lost state of Redis has written.
    runtime.clock.keep(segment, {"partial": True})


def _write_quarantine(runtime: Runtime, segment: HeldSegment, odd: Sequence[QuarantinedRow]) -> None:
    if not odd:
        return
    name = BatchFiles(segment.batch_id).quarantined(_job_number(segment), segment.record.number)
    with runtime.spool.write(name) as file:
        file.write(_encode_lines([{"reason": o.reason, "line": o.line.decode(errors="replace")} for o in odd]))
    log.warning("job %s: %d rows quarantined", segment.record.job_id, len(odd), extra=Event.ROWS_QUARANTINED.extra)


def _job_number(segment: HeldSegment) -> int:
    return split_job_id(segment.record.job_id)[1]


def _result_line(item: Joined, attempts: int, batch: BundledBatch | None = None) -> _ResultLine:
    request, response, outcome = item.request, item.response, item.outcome
    error = outcome.error
    if error is not None:
        error = error.shortened(_MAX_ERROR_CHARS)
        # An answer that an earlier job has begun is readable.
        if error.reason == MALFORMED and item.earlier is None:
            response = NO_RESPONSE
    line = request.key, outcome.status, response, error, item.usage, request.metadata, attempts
    return _ResultLine(*line) if batch is None else _ResultLine(*line, batch.id, batch.labels)


# ---- count


def _reason(item: Joined) -> str:
    return measures.short_reason(item.outcome.error.reason) if item.outcome.error else ""


def _totals(segment: HeldSegment, results: Sequence[Joined], counts: Mapping[str, int]) -> dict[str, int]:
    """The counters of all batches that a segment's results add to."""
    failed = [item for item in results if item.outcome.error is not None]
    by_reason = Counter((str(item.outcome.status), _reason(item)) for item in failed)
    by_reason[str(ResultStatus.SUCCEEDED), ""] = len(results) - len(failed)
    totals = {measures.counter(measures.RESULTS, *labels): count for labels, count in by_reason.items() if count}
    for name in Usage.__struct_fields__:
        if counts[name]:
            kind = name.removesuffix("_token_count")
            totals[measures.counter(measures.TOKENS, kind, segment.batch.provider, segment.batch.model)] = counts[name]
    return totals
