"""delete: removes a finished batch and all it left, when asked to or when its retention is over."""

from __future__ import annotations

import logging

from lowtide.layout import BatchFiles, display_name
from lowtide.states import BatchState
from lowtide_worker.clock import Done, Held
from lowtide_worker.crashpoints import reach
from lowtide_worker.runtime import Runtime

log = logging.getLogger(__name__)


def delete(runtime: Runtime, batch: Held) -> Done:
    """Deletes at the provider, then in the spool, and last the record itself."""
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
        provider.clear(display_name(job["id"]))
    reach("delete.after-provider")
    keep()
    files = BatchFiles(batch.batch_id)
    runtime.spool.delete(files.inbox)
    runtime.spool.delete(files.folder)
    reach("delete.after-files")
    runtime.ledger.forget(batch, keep)
    reach("delete.after-record")
    log.info("batch %s is deleted", batch.batch_id)
    return Done({"state": "deleted"})
