"""delete: removes a finished batch and all it left, when asked to or when its retention is over."""

from __future__ import annotations

import logging

from lowtide.protocol import BatchFiles, Stage
from lowtide.states import BatchState
from lowtide_worker.crashpoints import reach
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Done, Held, Move

log = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 3600.0
"""How often a batch that is kept beyond its retention is looked at."""


def delete(runtime: Runtime, batch: Held) -> Move | Done:
    """Deletes at the provider, then in the spool, and last the record itself; later, where results are undelivered."""
    if batch.batch["state"] != BatchState.DELETING and (kept := _kept(runtime, batch)):
        return kept
    # Nothing is deleted on the word of a Redis or of a spool that is not ours.
    runtime.installation.check()
    provider = runtime.provider(batch.batch["provider"])
    keep = runtime.clock.keeper(batch)
    # Also where its retention is over: from now on it stands in the way of no batch of the same key.
    runtime.clock.keep(batch, {"state": BatchState.DELETING})
    for job in runtime.ledger.jobs(batch):
        keep()
        if name := job.get("name"):
            provider.delete(name)
        if uploaded := job.get("input"):
            provider.delete_input(uploaded)
        keep()
        provider.clear(runtime.display_name(job))
    reach("delete.after-provider")
    keep()
    files = BatchFiles(batch.batch_id)
    # A worker that was frozen may write a late file, which the sweep may then remove.
    runtime.ledger.note_deleted(batch.batch_id)
    runtime.spool.delete(files.inbox)
    runtime.spool.delete(files.folder)
    reach("delete.after-files")
    runtime.ledger.forget(batch, keep)
    reach("delete.after-record")
    log.info("batch %s is deleted", batch.batch_id)
    return Done({"state": "deleted"})


def _kept(runtime: Runtime, batch: Held) -> Move | None:
    """A later look at a batch whose retention is over, and whose handler has not taken all of its results."""
    waiting = batch.number("undelivered") + batch.number("parked")
    left = float(batch.fields["finished"]) + runtime.settings.undelivered_retention_seconds - batch.now()
    if not waiting or left <= 0:
        return None
    problem = (
        f"kept beyond its retention: {waiting} segments of results are not delivered (redeliver or drop them; "
        f"else deleted in {left / 86_400:.1f} days)"
    )
    log.warning("batch %s: %s", batch.batch_id, problem)
    pause = min(left, _LOOK_AGAIN_SECONDS, runtime.settings.retention_seconds)
    return Move(stage=Stage.DELETE, after=pause, fields={"problem": problem})
