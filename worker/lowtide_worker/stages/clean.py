"""clean: removes the files of a closed job, at the provider and in the spool, now that its results are safe."""

from __future__ import annotations

from contextlib import suppress

from lowtide.protocol import BatchFiles
from lowtide.spool import DamagedBlob, DeleteRefused
from lowtide_worker.crashpoints import reach
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import HeldJob, JobMove, Move


def clean(runtime: Runtime, job: HeldJob) -> JobMove:
    """Deletes the provider's job, the uploaded input and the working files. The job is off the clock then."""
    provider = runtime.provider(job.batch.provider)
    # The record that the results are stored must be on disk before their only other copy is deleted.
    runtime.clock.keep_durably(job)
    keep = runtime.clock.keeper(job)
    if runtime.settings.delete_at_provider:
        if job.record.name:
            provider.delete(job.record.name)
            reach("clean.after-job-deleted")
            keep()
        if job.record.input:
            provider.delete_input(job.record.input)
            reach("clean.after-input-deleted")
            keep()
        provider.clear(runtime.display_name(job.record))
    keep()
    # Where the storage refuses, the files go with the batch: its deletion shows the reason if it fails too. So does a
    # link in the place of their folder, without what is behind it.
    with suppress(DeleteRefused, DamagedBlob):
        _delete_files(runtime, job)
    reach("clean.after-files-deleted")
    return Move(stage=None)


def _delete_files(runtime: Runtime, job: HeldJob) -> None:
    """Deletes the working files. The intent stays for as long as the job is at the provider.

    Those of a small job stay until its batch is deleted: an object store charges more for the calls than for the bytes.
    """
    if job.record.segments <= 1 and not job.record.sparse:
        return
    files, number = BatchFiles(job.batch_id), job.record.number
    if runtime.settings.delete_at_provider:
        runtime.spool.delete_folder(files.job(number))
        return
    for name in runtime.spool.names(files.job(number)):
        if name != files.intent(number):
            runtime.spool.delete(name)
