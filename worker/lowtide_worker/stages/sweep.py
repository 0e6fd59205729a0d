"""sweep: finds what should not be there, or is missing, in the store, at the provider and in the spool.

It runs on the clock like any other work, one at a time. All that it repairs is rare: a provider job that appeared after
its twin was adopted, an upload whose job was never created, files of a producer that died, a lost place on the clock.

It deletes only on evidence. A batch that Redis does not know is no evidence: Redis may have been emptied or restored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from lowtide.errors import InstallationMismatch, SpoolError
from lowtide.protocol import SINGLES, BatchFiles, Stage, batch_member, job_of_display_name, keys
from lowtide.states import JobState, Mode
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.inbox import is_waiting, take_in
from lowtide_worker.providers import Provider, ProviderError, every
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.orphans import FileAges, drafts, single_files
from lowtide_worker.stages.reconcile import remove, remove_twin
from lowtide_worker.state import HeldSweep, Move, SweepMove

log = logging.getLogger(__name__)


def sweep(runtime: Runtime, held: HeldSweep) -> SweepMove:
    """One round over everything; comes again after `sweep_seconds`."""
    keep = runtime.clock.keeper(held)
    runtime.deliveries.note_webhooks(list(runtime.settings.webhook_secrets))
    counts = {"put_back": runtime.oddities.put_back_on_clock(keep)}
    with runtime.oddities.apart("store", keys.UNDELIVERED):
        counts["undelivered"] = runtime.oddities.drop_undelivered(keep)
    reach("sweep.after-store")
    try:
        runtime.installation.check()
    except (InstallationMismatch, SpoolError) as mismatch:
        log.error("sweep: nothing is deleted: %s", mismatch, extra=Event.SWEEP_STOPPED.extra)  # noqa: TRY400 - the trace says nothing more
        return Move(stage=Stage.SWEEP, after=runtime.settings.sweep_seconds, fields={"problem": str(mismatch)})
    ages = FileAges(runtime)
    with runtime.oddities.apart("spool", "inbox"):
        counts["inbox"] = _inbox(runtime, keep)
    with runtime.oddities.apart("spool", "batches"):
        counts["files"] = _spool(runtime, ages, keep)
    with runtime.oddities.apart("spool", SINGLES):
        counts["single_files"] = single_files(runtime, ages, keep)
    with runtime.oddities.apart("spool", "drafts"):
        counts["drafts"] = drafts(runtime, ages, keep)
    for name in runtime.providers():
        for what, clean in (("jobs", _jobs), ("inputs", _inputs), ("slots", _slots)):
            try:
                provider = runtime.provider(name)
                unreadable = provider.unreadable_items()
                counts[f"{name}_{what}"] = clean(runtime, name, provider, keep)
                counts[f"{name}_odd_{what}"] = provider.unreadable_items() - unreadable
            except ProviderError as error:
                log.info(
                    "sweep: %s of %s are left for the next round: %s",
                    what,
                    name,
                    error,
                    extra=Event.SWEEP_INCOMPLETE.extra,
                )
    for what, count in counts.items():
        if count:
            log.warning("sweep: %s: %d", what, count, extra=Event.SWEEP_REPAIRED.extra)
            runtime.oddities.count(f"swept_{what}", count)
    return Move(stage=Stage.SWEEP, after=runtime.settings.sweep_seconds, fields={"problem": None})


def _jobs(runtime: Runtime, _: str, provider: Provider, keep: Callable[[], None]) -> int:
    """Removes provider jobs of this installation that belong to none of its jobs."""
    removed = 0
    for seen in every(provider.jobs, keep):
        with runtime.oddities.apart("jobs", seen.name):
            job = job_of_display_name(seen.display_name, runtime.installation.id)
            if job is None:
                continue
            record = runtime.ledger.job(job)
            if record is None:
                # Redis may have forgotten a job that is unknown here.
                if _is_deleted(runtime, job):
                    remove_twin(provider, seen, job)
                    removed += 1
                continue
            # A job in create has no name yet.
            if record.stage == Stage.CREATE:
                continue
            # A job that was taken for lost may have ended after all: while its batch runs, its rows may be wanted.
            if record.state is JobState.LOST and seen.state.terminal and runtime.ledger.runs(record.batch_id):
                continue
            if record.name != seen.name:
                # A job past create without a name ended before Lowtide knew that it was created.
                remove_twin(provider, seen, job)
                removed += 1
            elif record.stage is None and runtime.settings.delete_at_provider:
                remove(provider, seen)
                removed += 1
    return removed


def _inputs(runtime: Runtime, _: str, provider: Provider, keep: Callable[[], None]) -> int:
    """Deletes uploaded inputs that no job uses, or will use."""
    removed = 0
    for seen in every(provider.inputs, keep):
        with runtime.oddities.apart("inputs", seen.name):
            job = job_of_display_name(seen.display_name, runtime.installation.id)
            if job is not None and _is_unused(runtime, job, seen.name):
                provider.delete_input(seen.name)
                removed += 1
    return removed


def _slots(runtime: Runtime, name: str, provider: Provider, keep: Callable[[], None]) -> int:
    """Frees the slots of jobs of which Redis has lost the record, and which the provider does not run.

    Nothing else would end them. A job that runs keeps its slot until it ends; one that is just being created may not be
    in the provider's list yet.
    """
    latest = runtime.settings.longest_create_seconds(Mode.INLINE) + runtime.settings.create_settle_seconds
    lost = list[bytes]()
    # A key of another type costs no other part of the sweep.
    with runtime.oddities.apart("store", keys.live(name)):
        lost = runtime.admission.unrecorded(name, before=runtime.clock.now() - latest)
    if not lost:
        return 0
    running = {
        job_of_display_name(seen.display_name, runtime.installation.id)
        for seen in every(provider.jobs, keep)
        if not seen.state.terminal
    }
    gone = [job for job in lost if job.decode(errors="replace") not in running]
    with runtime.oddities.apart("store", keys.live(name)):
        return runtime.admission.free_slots(name, gone)
    return 0


def _is_unused(runtime: Runtime, job: str, uploaded: str) -> bool:
    """Whether an upload for a job is not its input, and will not be."""
    record = runtime.ledger.job(job)
    if record is None:
        return _is_deleted(runtime, job)
    if record.stage == Stage.CREATE:
        return False
    return record.input != uploaded or (record.stage is None and runtime.settings.delete_at_provider)


def _inbox(runtime: Runtime, keep: Callable[[], None]) -> int:
    """Imports batches of the inbox whose message was lost."""
    taken = 0
    for batch_id in runtime.spool.folders("inbox"):
        with runtime.oddities.apart("inbox", batch_id):
            if is_waiting(runtime, batch_id):
                take_in(runtime, batch_id)
                taken += 1
        keep()
    return taken


def _spool(runtime: Runtime, ages: FileAges, keep: Callable[[], None]) -> int:
    """Deletes files of producers that died before their batch was recorded, and late files of deleted batches."""
    removed = 0
    for batch_id in runtime.spool.folders("batches"):
        keep()
        with runtime.oddities.apart("files", batch_id):
            if runtime.ledger.knows(batch_member(batch_id)):
                continue
            files = BatchFiles(batch_id)
            if not _is_waste(runtime, files):
                log.info(
                    "sweep: %s stays: a batch that Redis does not know has results or work in it",
                    files.folder,
                    extra=Event.SWEEP_KEPT_FILES.extra,
                )
                continue
            if not ages.is_old(runtime.spool.modified(files.folder)):
                continue
            # Checked once more right before: it is the only deletion that no user asked for.
            keep()
            runtime.installation.check()
            if not runtime.ledger.knows(batch_member(batch_id)):
                runtime.spool.delete_folder(files.folder)
                removed += 1
    return removed


def _is_waste(runtime: Runtime, files: BatchFiles) -> bool:
    """Whether the folder of an unknown batch holds nothing of value.

    That is a folder that no worker ever wrote to, or one of a batch that was deleted. A new batch under a deleted one's
    id has an index, which no late writer brings back.
    """
    names = runtime.spool.names(files.folder)
    if all("/" not in name.removeprefix(f"{files.folder}/") for name in names):
        return True
    return files.index not in names and runtime.deleted.has(files.folder.rpartition("/")[2])


def _is_deleted(runtime: Runtime, job: str) -> bool:
    """Whether a job that Redis does not know is one of a batch that was deleted.

    A new batch under a deleted one's id has an index before it has a job.
    """
    batch_id = job.rpartition("-")[0]
    return runtime.deleted.has(batch_id) and not runtime.spool.exists(BatchFiles(batch_id).index)
