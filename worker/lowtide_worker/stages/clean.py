"""clean: removes what a closed job left, at the provider and in the spool, now that its results are safe."""

from __future__ import annotations

from lowtide.layout import BatchFiles
from lowtide_worker.clock import Held, Move
from lowtide_worker.crashpoints import reach
from lowtide_worker.runtime import Runtime


def clean(runtime: Runtime, job: Held) -> Move:
    """Deletes provider job, uploaded input and working files; the job is off the clock then."""
    provider = runtime.provider(job.batch["provider"])
    # What says that the results are in must be on disk before their only other copy goes.
    runtime.clock.keep_durably(job, {})
    if runtime.settings.delete_at_provider:
        if name := job.fields.get("name"):
            provider.delete(name)
            reach("clean.after-job-deleted")
        if uploaded := job.fields.get("input"):
            provider.delete_input(uploaded)
            reach("clean.after-input-deleted")
        provider.clear(runtime.display_name(job.fields))
    runtime.spool.delete(BatchFiles(job.batch_id).job(job.number("number")))
    reach("clean.after-files-deleted")
    return Move(stage=None)
