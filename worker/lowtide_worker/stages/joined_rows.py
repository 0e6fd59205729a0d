"""The rows of a segment with their requests, and the end of rows whose requests cannot be read any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lowtide.errors import LowtideError
from lowtide.redaction import problem_text
from lowtide.spool import DamagedBlob
from lowtide.store import NOT_STORED
from lowtide_worker.in_place import in_place, under_wire_keys
from lowtide_worker.output import Joined, QuarantinedRow, Row, join, shown
from lowtide_worker.partial_answers import PartialAnswers, continued, not_continued
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.collect import given_up
from lowtide_worker.stages.segment_rows import TRIES, is_rest
from lowtide_worker.state import HeldSegment, note_standstill


class LostRowsError(LowtideError):
    """A segment cannot be stored, and its requests are left to settle: see `join_rows`."""


def join_rows(runtime: Runtime, segment: HeldSegment, rows: Sequence[Row]) -> tuple[list[Joined], list[QuarantinedRow]]:
    """Finds the request of each row, and for rows that continue an answer what came before.

    Where the files of the requests are damaged, the batch says so. Once it is cancelled or past its deadline, all rows
    go to the quarantine: they were paid for, and their requests end without results. Raises `DamagedBlob` until then,
    and `LostRowsError` for a segment that holds results already or that settle wrote.
    """
    try:
        found = _joined(runtime, segment, rows)
    except DamagedBlob as damaged:
        _note(runtime, segment, damaged)
        _require_end(runtime, segment, damaged)
        return [], [QuarantinedRow("its request is lost", shown(row), row) for row in rows]
    return found


@contextmanager
def written_in_place(runtime: Runtime, segment: HeldSegment) -> Iterator[None]:
    """Surrounds the writing of a segment's files, of which something else may have the place, such as a link.

    As `join_rows`, it says so on the batch, and raises `LostRowsError` once that is cancelled or past its deadline.
    """
    try:
        yield
    except DamagedBlob as damaged:
        _note(runtime, segment, damaged)
        if segment.record.failures >= TRIES and (is_rest(segment) or given_up(runtime, segment, segment.job)):
            runtime.installation.check()
            raise LostRowsError(f"its results have no place: {damaged}") from damaged
        raise
    if segment.record.failures and segment.batch.problem:
        note_standstill(runtime.redis, segment, "")


def _note(runtime: Runtime, segment: HeldSegment, damaged: DamagedBlob) -> None:
    note_standstill(runtime.redis, segment, problem_text(f"{NOT_STORED}{damaged}"))


def _require_end(runtime: Runtime, segment: HeldSegment, damaged: DamagedBlob) -> None:
    """Raises unless the rows of a segment are to be given up now, and can go to the quarantine."""
    if segment.record.failures < TRIES:
        raise damaged
    if is_rest(segment) or given_up(runtime, segment, segment.job):
        # A spool that is not mounted has lost no requests.
        runtime.installation.check()
        if is_rest(segment) or segment.record.granted:
            raise LostRowsError(f"its requests end without results: {damaged}") from damaged
        return
    raise damaged


def _joined(runtime: Runtime, segment: HeldSegment, rows: Sequence[Row]) -> tuple[list[Joined], list[QuarantinedRow]]:
    job = segment.job
    if in_place(segment.batch, job) and not is_rest(segment):
        rows = under_wire_keys(rows, runtime.spool, segment.batch_id)
    joined, foreign = join(
        rows,
        ordinals=range(job.first, job.last),
        reader=runtime.requests.of(segment.batch),
    )
    return _with_earlier_answers(runtime, segment, joined), foreign


def _with_earlier_answers(runtime: Runtime, segment: HeldSegment, joined: list[Joined]) -> list[Joined]:
    """The rows with the whole answers as far as they have come, where the job continues answers of earlier jobs."""
    job = segment.job
    if job.partial and not is_rest(segment):
        begun = PartialAnswers.read(runtime.spool, segment.batch_id, job.partial)
        joined = continued(joined, begun, segment.batch.outcomes)
    if job.continuations >= runtime.settings.max_continuations:
        joined = not_continued(joined, job.continuations)
    return joined
