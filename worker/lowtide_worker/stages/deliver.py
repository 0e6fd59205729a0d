"""deliver: turns one segment of output into stored results, and hands them to the batch's handler.

Rows are joined by key, never by position. The first final row of a request becomes its result; a key that is
not this batch's, or not this request's, goes to the quarantine with the reason.
"""

from __future__ import annotations

import logging
from operator import attrgetter

import msgspec

from lowtide.errors import SpoolError
from lowtide.models import ResultError, Usage
from lowtide.protocol import BatchFiles, Queue, Stage, split_job_id
from lowtide.spool import RequestReader
from lowtide.states import ResultStatus, Verdict
from lowtide_worker.crashpoints import reach
from lowtide_worker.handlers import HandlerFailed, NobodyListens, Segment
from lowtide_worker.in_place import in_place, under_wire_keys
from lowtide_worker.output import Joined, QuarantinedRow, Row, join, overruled, part_ranges, provider_rows, rest_rows
from lowtide_worker.providers import NO_RESPONSE, Missing
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Done, Held, Move

log = logging.getLogger(__name__)

_MAX_ERROR_CHARS = 4000
_TRIES = 3
"""After so many, a segment whose bytes are not there is given up."""
_LONGEST_PATIENCE = 86_400.0
_QUEUED_SECONDS = 1800.0
"""A segment without a place in its handler's hands is woken when its turn comes; for the case that nobody woke it."""
_FILLS_PER_WINDOW = 8
_LINES_AT_ONCE = 500


class _ResultLine(msgspec.Struct, frozen=True, gc=False):
    """A stored result: `lowtide.Result` with the response passed through as the provider's own bytes."""

    key: str
    status: ResultStatus
    response: msgspec.Raw
    error: ResultError | None
    usage: Usage | None
    metadata: msgspec.Raw
    attempts: int


_encode_lines = msgspec.json.Encoder().encode_lines


def deliver(runtime: Runtime, segment: Held) -> Move | Done:
    """Stores a segment's results if that is still to be done, then hands them over."""
    try:
        counts = {} if segment.number("stored") else _store(runtime, segment)
    except SpoolError:
        if not _is_gone(runtime, segment):
            raise
        log.warning("segment %s: its bytes are gone from the spool; brought again", segment.member)
        runtime.ledger.recollect(segment, from_provider=segment.fields["source"] != "rest")
        return Done({"gone": 1}, wakes=(Queue.RESULTS, Queue.JOBS))
    except Missing as missing:
        # Somebody took the output away: what an earlier run was granted from it, and did not store, runs again too.
        log.warning("segment %s: its output is gone: %s", segment.member, missing)
        runtime.ledger.recollect(segment, from_provider=False)
        return Done({"gone": 1}, wakes=(Queue.JOBS,))
    spec = segment.batch["on_result"]
    if spec and (segment.number("stored") or any(counts.get(status) for status in ResultStatus)):
        return _hand_over(runtime, segment, spec, counts)
    return Done(counts, wakes=_wakes(runtime, segment, counts))


def _is_gone(runtime: Runtime, segment: Held) -> bool:
    """Whether the file with a segment's bytes is not in the spool, and that for some tries, and it is our spool."""
    if segment.job.get("parts") and segment.fields["source"] != "rest":
        return False
    if segment.number("failures") < _TRIES or runtime.spool.exists(_place(segment)):
        return False
    runtime.installation.check()
    return True


def _place(segment: Held) -> str:
    """The file in the spool that a segment is a part of."""
    files = BatchFiles(segment.batch_id)
    _, number = split_job_id(segment.fields["job_id"])
    place = files.rest if segment.fields["source"] == "rest" else files.output
    return place(number, segment.fields["piece"])


def _store(runtime: Runtime, segment: Held) -> dict[str, int]:
    """Writes and counts the results of a segment; returns how many there were of each kind, and are left."""
    files = BatchFiles(segment.batch_id)
    _, number = split_job_id(segment.fields["job_id"])
    job = segment.job
    attempt = int(job["attempt"])
    last_attempt = attempt >= int(segment.batch["max_attempts"])
    start, end = segment.number("start"), segment.number("end")
    if segment.fields["source"] == "rest":
        rows, malformed = rest_rows(runtime.spool.read(_place(segment), start, end)), list[QuarantinedRow]()
    else:
        provider = runtime.provider(segment.batch["provider"])
        if parts := job.get("parts"):
            block = b"".join(provider.read(*part) for part in part_ranges(parts, start, end))
        else:
            block = runtime.spool.read(_place(segment), start, end)
        rows, malformed = provider_rows(provider, block)
        if in_place(segment.batch, job):
            rows = under_wire_keys(rows, runtime.spool, segment.batch_id)
        if outcomes := msgspec.json.decode(segment.batch.get("outcomes", "{}"), type=dict[str, Verdict]):
            rows = [Row(row.key, row.response, overruled(row.outcome, outcomes)) for row in rows]
    joined, foreign = join(
        rows,
        ordinals=range(int(job["first"]), int(job["last"])),
        reader=RequestReader(runtime.spool, segment.batch_id),
    )
    if last_attempt:
        # Where one request has several rows, an answer goes before a failure.
        final = sorted(joined, key=attrgetter("outcome.retryable"))
    else:
        final = [item for item in joined if not item.outcome.retryable]
    reach("deliver.before-grant")
    granted = runtime.ledger.grant(segment, [item.ordinal for item in final])
    reach("deliver.after-grant")
    results = [item for item, own in zip(final, granted, strict=True) if own]
    runtime.clock.check(segment)
    if results:
        attempts = attempt + int(job["losses"])
        with runtime.spool.write(files.result(number, segment.number("number"))) as file:
            for first in range(0, len(results), _LINES_AT_ONCE):
                some = results[first : first + _LINES_AT_ONCE]
                file.write(_encode_lines([_result_line(item, attempts) for item in some]))
    else:
        # A Redis that went back in time may have known other results under this name.
        runtime.spool.delete(files.result(number, segment.number("number")))
    if odd := malformed + foreign:
        with runtime.spool.write(files.quarantined(number, segment.number("number"))) as file:
            file.write(_encode_lines([{"reason": o.reason, "line": o.line.decode(errors="replace")} for o in odd]))
        log.warning("job %s: %d rows quarantined", segment.fields["job_id"], len(odd))
    counts = _counts(results) | {"duplicates": len(final) - len(results), "quarantined": len(odd)}
    reach("deliver.before-record")
    left = runtime.ledger.record(segment, counts, handler_waits=bool(segment.batch["on_result"] and results))
    reach("deliver.after-record")
    return {name: count for name, count in counts.items() if name not in Usage.__struct_fields__} | {"left": left}


def _wakes(runtime: Runtime, segment: Held, counts: dict[str, int]) -> tuple[Queue, ...]:
    """With its last segment a job can be settled; now and then the queue is filled up with more segments."""
    if counts.get("left") == 0:
        return (Queue.JOBS,)
    every = max(1, runtime.settings.queue_window // _FILLS_PER_WINDOW)
    return (Queue.RESULTS,) if segment.number("number") % every == 0 else ()


def _result_line(item: Joined, attempts: int) -> _ResultLine:
    request, response, outcome = item.request, item.response, item.outcome
    error = outcome.error
    if error is not None:
        error = error.shortened(_MAX_ERROR_CHARS)
        if error.reason == "MALFORMED":
            response = NO_RESPONSE
    return _ResultLine(request.key, outcome.status, response, error, outcome.usage, request.metadata, attempts)


def _counts(results: list[Joined]) -> dict[str, int]:
    statuses = [item.outcome.status for item in results]
    counts: dict[str, int] = {status: count for status in ResultStatus if (count := statuses.count(status))}
    usages = [item.outcome.usage for item in results if item.outcome.usage is not None]
    for name in Usage.__struct_fields__:
        counts[name] = sum(map(attrgetter(name), usages))
    return counts


def _hand_over(runtime: Runtime, segment: Held, spec: str, counts: dict[str, int]) -> Move | Done:
    """Gives the stored results to the handler; later again if it fails, and parks them after the last try."""
    tries = segment.number("tries")
    job = segment.fields["job_id"]
    _, number = split_job_id(job)
    if tries >= runtime.settings.max_delivery_attempts:
        log.error("segment %s: its handler failed %d times; parked", segment.member, tries)
        runtime.ledger.handed_over(segment, parked=True)
        return Done({"parked": tries})
    wakes = _wakes(runtime, segment, counts)
    handler = runtime.handler(spec)
    patience = min(runtime.settings.handler_patience_seconds * 2 ** segment.number("silences"), _LONGEST_PATIENCE)
    if handler.answers and not runtime.ledger.offer(segment, patience=patience):
        return Move(stage=Stage.DELIVER, after=_QUEUED_SECONDS, wakes=wakes)
    only = segment.fields.get("only")
    delivery = Segment(
        batch_id=segment.batch_id,
        delivery_id=f"{job}:{segment.number('number')}",
        results=BatchFiles(segment.batch_id).result(number, segment.number("number")),
        attempt=tries + 1,
        only=msgspec.json.decode(only, type=list[int]) if only else None,
    )
    reach("deliver.before-hand-over")
    runtime.clock.check(segment)
    try:
        queue = handler.hand_over(delivery)
    except NobodyListens as nobody:
        return runtime.deliveries.wait(segment, nobody, wakes)
    except HandlerFailed as failure:
        log.warning("segment %s: handler failed: %s", segment.member, failure)
        runtime.clock.check(segment)
        runtime.ledger.withdraw(segment)
        runtime.deliveries.failed(segment, str(failure))
        return Move(
            stage=Stage.DELIVER,
            after=runtime.delivery_backoff.seconds(tries),
            fields={"tries": tries + 1, "problem": str(failure)[:1000]},
            wakes=wakes,
        )
    reach("deliver.after-hand-over")
    runtime.deliveries.succeeded(segment)
    if handler.answers:
        # Its message, or the worker that had it, may get lost: silence is no failure, but it comes again.
        silences = segment.number("silences") + 1
        return Move(
            stage=Stage.DELIVER,
            after=patience,
            fields={"silences": silences, "sent_to": queue or "", "problem": "", "looks": 0},
            wakes=wakes,
        )
    runtime.ledger.handed_over(segment)
    return Done({**counts, "handed_over": delivery.attempt}, wakes=wakes)
