"""The end of requests whose batch has lost its files: without them, no result can be stored."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from lowtide.errors import SpoolError
from lowtide.models import REQUESTS_LOST, ResultError
from lowtide.protocol import DamagedRecord, Stage, batch_member
from lowtide.spool import DamagedBlob
from lowtide.states import BatchState, JobState
from lowtide_worker.events import Event
from lowtide_worker.in_place import lines_elsewhere
from lowtide_worker.intents import forgotten_intent
from lowtide_worker.partial_answers import PartialAnswers
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Done, HeldBatch, HeldJob, JobMove, Move, bounded

log = logging.getLogger(__name__)

Entity = TypeVar("Entity", HeldBatch, HeldJob)


def not_whole(name: str) -> str:
    """Returns the problem of a file of the spool that is missing, or not whole."""
    return f"{name} is missing from the spool, or not whole"


def requests_lost(runtime: Runtime, held: Entity, problem: str, consequence: str) -> ResultError:
    """Returns the error with which the requests end.

    - `problem`: of the file without which nothing is possible, such as `not_whole`.
    - `consequence`: of the loss, for people.

    Raises `SpoolError` for as long as the spool may only be away for a moment: `output_grace_seconds`.
    """
    # First, as a spool that is not mounted has lost no requests: the grace begins when it serves again.
    runtime.installation.check()
    grace = runtime.settings.output_grace_seconds
    since = held.noted(held.record.damaged_since)
    if held.now() - since < grace:
        runtime.clock.keep(held, {"damaged_since": since})
        raise SpoolError(f"{problem}; after {grace:g} s of this, its requests end without results")
    return ResultError(reason=REQUESTS_LOST, message=f"{problem}, so {consequence}")


def end_without_requests(runtime: Runtime, batch: HeldBatch, problem: str, consequence: str) -> Done:
    """Ends a batch of which nothing was sent. Parameters and errors are those of `requests_lost`."""
    error = requests_lost(runtime, batch, problem, consequence)
    runtime.ledger.lose(batch, error)
    log.error("batch %s has ended without results: %s", batch.batch_id, error.message, extra=Event.BATCH_LOST.extra)
    return Done({"state": "failed", "missing": problem})


def end_uncreated(runtime: Runtime, job: HeldJob, damaged: DamagedBlob) -> JobMove:
    """Ends a job that cannot be created: its requests cannot be read, or its files have no place in the spool.

    Raises `SpoolError` as `requests_lost` does.
    """
    error = requests_lost(runtime, job, str(damaged), "nothing was sent")
    log.error("job %s: %s", job.record.id, error.message, extra=Event.BATCH_LOST.extra)
    runtime.admission.withdraw(job)
    if job.batch.cancel:
        return Move(stage=Stage.SETTLE, fields={"state": JobState.CANCELLED})
    return Move(stage=Stage.SETTLE, fields={"state": JobState.FAILED, "refused": True, "error": bounded(error)})


def with_damage_over(runtime: Runtime, job: HeldJob, move: JobMove) -> JobMove:
    """Returns the move of a job that is to be created later, without the damage that was noted and that has passed.

    The job may wait for its slot for hours, and the next damage has a grace of its own.
    """
    if job.record.damaged_since is None or move.stage is not Stage.CREATE or "intent" in move.fields:
        return move
    try:
        forgotten_intent(runtime, job)
        if job.record.partial:
            PartialAnswers.read(runtime.spool, job.batch_id, job.record.partial)
    except DamagedBlob:
        return move
    lines = not lines_elsewhere(job.batch)
    if runtime.requests.of(job.batch).damaged(job.batch.total, lines=lines, groups=False):
        return move
    return replace(move, fields={"damaged_since": None, **move.fields})


def end_bundled(runtime: Runtime, job: HeldJob, error: ResultError) -> None:
    """Ends all batches of a bundle whose files are lost, and settles their requests there."""
    for share in runtime.bundles.shares(job.batch_id, job.batch.total):
        # A batch whose own record is damaged stops no other.
        with suppress(DamagedRecord):
            record = runtime.bundles.record(share.batch_id)
            if record is None or record.state not in (BatchState.PENDING, BatchState.RUNNING):
                continue
            member = batch_member(share.batch_id)
            held = HeldBatch(member=member, stage=job.stage, token=record.token, record=record, begun=job.begun)
            runtime.ledger.lose(held, error)
    runtime.bundles.spare(job)
