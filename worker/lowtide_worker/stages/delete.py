"""delete: removes a finished batch with all its files, when asked to or when its retention is over."""

from __future__ import annotations

import logging

from lowtide.protocol import BatchFiles, Queue, Stage
from lowtide.spool import DeleteRefused
from lowtide.states import BatchState
from lowtide.text import counted
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import BatchMove, Done, HeldBatch, Move, known

log = logging.getLogger(__name__)

_SHORTEST_PAUSE_SECONDS = 1.0
_EARLY_SECONDS = 1.0
"""Seconds by which a retention may end early: a worker's idea of the time is no better."""
_LOOK_AGAIN_SECONDS = 3600.0
"""Pause between two checks of a batch that is kept beyond its retention, or that its storage does not let go."""


def delete(runtime: Runtime, batch: HeldBatch) -> BatchMove | Done:
    """Deletes at the provider, then in the spool, and last the record itself; later, where results are undelivered."""
    if needed := _needed(runtime, batch):
        return needed
    if batch.record.state is not BatchState.DELETING and (kept := _early(runtime, batch) or _kept(runtime, batch)):
        return kept
    # Nothing is deleted because of a Redis or a spool of another installation.
    runtime.installation.check()
    provider = runtime.provider(batch.record.provider)
    keep = runtime.clock.keeper(batch)
    # Also where its retention is over: from now on its idempotency key is free for another batch.
    runtime.clock.keep(batch, {"state": BatchState.DELETING})
    for job in runtime.ledger.jobs(batch):
        keep()
        if job.name:
            provider.delete(job.name)
        if job.input:
            provider.delete_input(job.input)
        keep()
        provider.clear(runtime.display_name(job))
    reach("delete.after-provider")
    keep()
    files = BatchFiles(batch.batch_id)
    # A worker that was frozen may write a late file, which the sweep may then remove.
    runtime.deleted.note(batch.batch_id)
    # Those of the inbox are there only if the worker that took the batch from there died.
    try:
        runtime.spool.delete_folder(files.folder, *files.inbox_files)
    except DeleteRefused as refused:
        return _refused(batch, refused)
    reach("delete.after-files")
    runtime.deleted.forget(batch, keep)
    reach("delete.after-record")
    log.info("batch %s is deleted", batch.batch_id, extra=Event.BATCH_DELETED.extra)
    # Others of the lower turn need not wait for the tick.
    return Done({"state": "deleted"}, wakes=(Queue.JOBS,))


def _needed(runtime: Runtime, batch: HeldBatch) -> BatchMove | None:
    """A later check, where a bundle has results of a batch, or is still to read its requests; else None."""
    if batch.record.bundled_left:
        # The last of its batches wakes it.
        return Move(stage=Stage.DELETE, after=runtime.settings.retention_seconds)
    bundle = runtime.bundles.record(batch.record.bundle) if batch.record.bundle else None
    if bundle is not None and bundle.stage == Stage.SUBMIT:
        return Move(stage=Stage.DELETE, after=max(runtime.settings.linger_seconds, _SHORTEST_PAUSE_SECONDS))
    return None


def _refused(batch: HeldBatch, refused: DeleteRefused) -> BatchMove:
    """A later try, where the storage holds the files: only a change of the storage can help."""
    problem = f"cannot be deleted: {refused}"
    if problem != batch.record.problem:
        log.error("batch %s %s", batch.batch_id, problem, extra=Event.BATCH_KEPT.extra)
    return Move(stage=Stage.DELETE, after=_LOOK_AGAIN_SECONDS, fields={"problem": problem})


def _early(runtime: Runtime, batch: HeldBatch) -> BatchMove | None:
    """A later check, where the retention is not over, whatever has made the batch due; else None.

    A bundle has none of its own: it is deleted with the last of its batches.
    """
    if batch.record.bundled:
        return None
    retention = runtime.settings.retention_seconds if batch.record.kept is None else batch.record.kept
    left = retention - batch.age_of(known(batch.record.finished, "finished"))
    return Move(stage=Stage.DELETE, after=min(left, _LOOK_AGAIN_SECONDS)) if left > _EARLY_SECONDS else None


def _kept(runtime: Runtime, batch: HeldBatch) -> BatchMove | None:
    """A later check, where its retention is over and its handler has not taken all results; else None."""
    bundle = runtime.bundles.record(batch.record.bundle) if batch.record.bundle else None
    waiting = sum(one.undelivered + one.parked for one in (batch.record, bundle) if one is not None)
    left = runtime.settings.undelivered_retention_seconds - batch.age_of(known(batch.record.finished, "finished"))
    if not waiting or left <= 0:
        return None
    waiting_segments = counted(waiting, "segment of results is", "segments of results are")
    problem = (
        f"kept beyond its retention: {waiting_segments} not delivered (redeliver or drop them; "
        f"else deleted in {left / 86_400:.1f} days)"
    )
    log.warning("batch %s: %s", batch.batch_id, problem, extra=Event.BATCH_KEPT.extra)
    pause = min(left, _LOOK_AGAIN_SECONDS, runtime.settings.retention_seconds)
    return Move(stage=Stage.DELETE, after=pause, fields={"problem": problem})
