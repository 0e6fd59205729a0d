"""deliver: turns one segment of output into stored results, and hands them to the batch's handler.

Rows are joined by key, never by position. The first final row of a request becomes its result; a key that is
not this batch's, or not this request's, goes to the quarantine with the reason.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from lowtide.layout import BatchFiles, split_job_id
from lowtide.messages import Stage
from lowtide.models import ResultError, Usage
from lowtide.requests import KeyLine, RequestReader
from lowtide.states import ResultStatus
from lowtide.wire import wire_key, wire_ordinal
from lowtide_worker.clock import Held, Move
from lowtide_worker.crashpoints import reach
from lowtide_worker.handlers import HandlerFailed, Segment
from lowtide_worker.providers import OutputRow, Provider
from lowtide_worker.rows import Outcome, judge
from lowtide_worker.runtime import Runtime

log = logging.getLogger(__name__)

_MAX_ERROR_CHARS = 4000


class _ResultLine(msgspec.Struct, frozen=True):
    """A stored result: `lowtide.Result` with the response passed through as the provider's own bytes."""

    key: str
    status: ResultStatus
    response: msgspec.Raw
    error: ResultError | None
    usage: Usage | None
    metadata: msgspec.Raw
    attempts: int


class RestRow(msgspec.Struct, frozen=True):
    """An outcome that Lowtide decided itself, written by settle."""

    key: str
    status: ResultStatus
    error: ResultError


class _Judged(NamedTuple):
    ordinal: int
    row: OutputRow
    outcome: Outcome


class _Odd(NamedTuple):
    """A row that is nobody's."""

    reason: str
    line: bytes


_NULL = msgspec.Raw(b"null")
_encode = msgspec.json.Encoder().encode
_decode_rest = msgspec.json.Decoder(RestRow).decode


def deliver(runtime: Runtime, segment: Held) -> Move | None:
    """Stores a segment's results if that is still to be done, then hands them over."""
    spec = segment.batch["on_result"]
    if not segment.number("stored"):
        stored = _store(runtime, segment)
        if not (spec and stored):
            return None
    return _hand_over(runtime, segment, spec)


def _store(runtime: Runtime, segment: Held) -> bool:
    """Writes and counts the results of a segment; returns whether there are any."""
    files = BatchFiles(segment.batch_id)
    _, number = split_job_id(segment.fields["job_id"])
    job = runtime.ledger.job(segment.fields["job_id"])
    attempt = int(job["attempt"])
    last_attempt = attempt >= int(segment.batch["max_attempts"])
    attempts = attempt + int(job["losses"])
    rest = segment.fields["source"] == "rest"
    name = files.rest(number) if rest else files.output(number)
    block = runtime.spool.read(name, segment.number("start"), segment.number("end"))
    judged: list[_Judged] = []
    odd: list[_Odd] = []
    provider = runtime.provider(segment.batch["provider"])
    for line in block.split(b"\n"):
        if not line or line.isspace():
            continue
        found = _read_rest(line) if rest else _read(provider, line, range(int(job["first"]), int(job["last"])))
        if isinstance(found, _Odd):
            odd.append(found)
        else:
            judged.append(found)
    key_lines = RequestReader(runtime.spool, segment.batch_id).keys({item.ordinal for item in judged})
    final = []
    for item in judged:
        if wire_key(segment.batch_id, item.ordinal, key_lines[item.ordinal].key) != item.row.key:
            odd.append(_Odd("key does not match its request", item.row.response or b""))
        elif not item.outcome.retryable or last_attempt:
            final.append(item)
    reach("deliver.before-grant")
    granted = runtime.ledger.grant(segment, [item.ordinal for item in final])
    reach("deliver.after-grant")
    results = [item for item, own in zip(final, granted, strict=True) if own]
    if results:
        with runtime.spool.write(files.result(number, segment.number("number"))) as file:
            file.writelines(_result_lines(results, key_lines, attempts))
    if odd:
        with runtime.spool.write(files.quarantined(number, segment.number("number"))) as file:
            file.writelines(_encode({"reason": o.reason, "line": o.line.decode(errors="replace")}) + b"\n" for o in odd)
        log.warning("job %s: %d rows quarantined", segment.fields["job_id"], len(odd))
    counts = _counts(results) + Counter(duplicates=len(final) - len(results), quarantined=len(odd))
    handler_waits = bool(segment.batch["on_result"]) and bool(results)
    reach("deliver.before-record")
    runtime.ledger.record(segment, counts, handler_waits=handler_waits)
    reach("deliver.after-record")
    return bool(results)


def _read(provider: Provider, line: bytes, ordinals: range) -> _Judged | _Odd:
    try:
        row = provider.row(line)
    except ValueError as error:
        return _Odd(f"malformed: {error}", line)
    ordinal = wire_ordinal(row.key) if row.key is not None else None
    if ordinal is None or ordinal not in ordinals:
        return _Odd("unknown key", line)
    return _Judged(ordinal, row, judge(row))


def _read_rest(line: bytes) -> _Judged | _Odd:
    row = _decode_rest(line)
    ordinal = wire_ordinal(row.key)
    if ordinal is None:
        return _Odd("unknown key", line)
    return _Judged(ordinal, OutputRow(row.key), Outcome(row.status, row.error, None))


def _result_lines(results: list[_Judged], key_lines: dict[int, KeyLine], attempts: int) -> Iterator[bytes]:
    for ordinal, row, outcome in results:
        error = outcome.error
        if error is not None and len(error.message) > _MAX_ERROR_CHARS:
            error = msgspec.structs.replace(error, message=error.message[:_MAX_ERROR_CHARS])
        line = _ResultLine(
            key=key_lines[ordinal].key,
            status=outcome.status,
            response=msgspec.Raw(row.response) if row.response is not None else _NULL,
            error=error,
            usage=outcome.usage,
            metadata=key_lines[ordinal].metadata,
            attempts=attempts,
        )
        yield _encode(line) + b"\n"


def _counts(results: list[_Judged]) -> Counter[str]:
    counts: Counter[str] = Counter(item.outcome.status for item in results)
    for item in results:
        if (usage := item.outcome.usage) is not None:
            for name in Usage.__struct_fields__:
                counts[name] += getattr(usage, name)
    return counts


def _hand_over(runtime: Runtime, segment: Held, spec: str) -> Move | None:
    """Gives the stored results to the handler; later again if it fails, and parks them after the last try."""
    tries = segment.number("tries")
    job = segment.fields["job_id"]
    _, number = split_job_id(job)
    if tries >= runtime.settings.max_delivery_attempts:
        log.error("segment %s: its handler failed %d times; parked", segment.member, tries)
        runtime.ledger.handed_over(segment, parked=True)
        return None
    only = segment.fields.get("only")
    delivery = Segment(
        batch_id=segment.batch_id,
        delivery_id=f"{job}:{segment.number('number')}",
        results=BatchFiles(segment.batch_id).result(number, segment.number("number")),
        attempt=tries + 1,
        only=msgspec.json.decode(only, type=list[int]) if only else None,
    )
    reach("deliver.before-hand-over")
    try:
        runtime.handler(spec).hand_over(delivery)
    except HandlerFailed as failure:
        log.warning("segment %s: handler failed: %s", segment.member, failure)
        return Move(
            stage=Stage.DELIVER,
            after=runtime.delivery_backoff.seconds(tries),
            fields={"tries": tries + 1, "problem": str(failure)[:1000]},
        )
    reach("deliver.after-hand-over")
    runtime.ledger.handed_over(segment)
    return None
