"""clean: removes what a closed job left, at the provider and in the spool, now that its results are safe."""

from __future__ import annotations

from lowtide.protocol import BatchFiles
from lowtide_worker.crashpoints import reach
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Held, Move


def clean(runtime: Runtime, job: Held) -> Move:
    """Deletes provider job, uploaded input and working files; the job is off the clock then."""
    provider = runtime.provider(job.batch["provider"])
    # What says that the results are in must be on disk before their only other copy goes.
    runtime.clock.keep_durably(job, {})
    keep = runtime.clock.keeper(job)
    if runtime.settings.delete_at_provider:
        if name := job.fields.get("name"):
            provider.delete(name)
            reach("clean.after-job-deleted")
            keep()
        if uploaded := job.fields.get("input"):
            provider.delete_input(uploaded)
            reach("clean.after-input-deleted")
            keep()
        provider.clear(runtime.display_name(job.fields))
    keep()
    _delete_files(runtime, job)
    reach("clean.after-files-deleted")
    return Move(stage=None)


def _delete_files(runtime: Runtime, job: Held) -> None:
    """Deletes the working files; the note that the job was created stays for as long as it is at the provider."""
    files, number = BatchFiles(job.batch_id), job.number("number")
    if runtime.settings.delete_at_provider:
        runtime.spool.delete(files.job(number))
        return
    for name in runtime.spool.names(files.job(number)):
        if name != files.intent(number):
            runtime.spool.delete(name)
