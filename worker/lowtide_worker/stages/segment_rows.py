"""The rows of a segment: where they are, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import date

from lowtide.protocol import BatchFiles, split_job_id
from lowtide.protocol.daily_costs import day_of
from lowtide.protocol.file_parts import Part
from lowtide.spool import DamagedBlob
from lowtide_worker.output import QuarantinedRow, Row, RowCosts, overruled, part_ranges, provider_rows, rest_rows
from lowtide_worker.providers import Provider
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import HeldSegment

TRIES = 3
"""After so many failures, a segment whose file is not in the spool is given up."""


def read_rows(runtime: Runtime, segment: HeldSegment) -> tuple[list[Row], list[QuarantinedRow]]:
    """Returns the rows of a segment, judged, and the lines that are no rows."""
    start, end = segment.record.start, segment.record.end
    if is_rest(segment):
        return rest_rows(runtime.spool.read(_file(segment), start, end)), []
    provider = runtime.provider(segment.batch.provider)
    if segment.job.parts:
        block = _read_parts(provider, segment.job.parts, start, end)
    else:
        block = runtime.spool.read(_file(segment), start, end)
    costs = RowCosts(runtime.prices, segment.batch.model, day_of_rows(segment))
    rows, malformed = provider_rows(provider, block, costs)
    if outcomes := segment.batch.outcomes:
        rows = [Row(row.key, row.response, overruled(row.outcome, outcomes), row.cost) for row in rows]
    return rows, malformed


def day_of_rows(segment: HeldSegment) -> date:
    """Returns the day whose prices count for the job's rows, and whose costs they belong to."""
    job = segment.job
    return day_of(job.ended or job.created or segment.now())


def _read_parts(provider: Provider, parts: Sequence[Part], start: int, end: int) -> bytes:
    """A byte range of output that stays at the provider, all parts being counted as one file."""
    return b"".join(provider.read(*found) for found in part_ranges(parts, start, end))


def is_rest(segment: HeldSegment) -> bool:
    """Returns whether settle wrote the segment, for requests that ended without a row."""
    return segment.record.origin == "rest"


def _file(segment: HeldSegment) -> str:
    """The file in the spool that holds a segment's rows."""
    files = BatchFiles(segment.batch_id)
    file = files.rest if is_rest(segment) else files.output
    return file(split_job_id(segment.record.job_id)[1], segment.record.piece or "")


def is_gone(runtime: Runtime, segment: HeldSegment) -> bool:
    """Returns whether a segment's bytes have been missing for some tries, from the spool that is ours."""
    if (segment.job.parts and not is_rest(segment)) or segment.record.failures < TRIES:
        return False
    # After a power cut, a working file may be there and be too short. A bad sector is seen by reading it.
    with suppress(DamagedBlob):
        runtime.spool.read(_file(segment), segment.record.start, segment.record.end)
        return False
    runtime.installation.check()
    return True
