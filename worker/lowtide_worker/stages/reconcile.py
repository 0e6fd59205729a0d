"""reconcile, the second half of create: finds out whether a create of unknown outcome has made a job.

After a settling time, all pages of the provider's list are searched for the job's display name. A job of that name is
adopted; surplus twins are cancelled and deleted; only where there is none is the job created again.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from lowtide.protocol import Stage
from lowtide.states import JobState
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.providers import Provider, ProviderJob, every
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import HeldJob, JobMove, Move, known

log = logging.getLogger(__name__)

_ALIKE_SECONDS = 5.0
"""Clocks that differ by less are alike."""


def reconcile(runtime: Runtime, provider: Provider, job: HeldJob) -> JobMove:
    """Adopts the provider job of an earlier create, or starts again if there surely is none."""
    settings = runtime.settings
    latest = job.now() + settings.longest_create_seconds(job.batch.mode)
    # A call of unknown outcome may still be under way, in a worker that lost its lease.
    over = job.record.answered or job.record.intent_until or _unbounded(runtime, job)
    if over > latest or (job.record.answered is None and _ran_ahead(job)):
        # Redis's clock was set since, so the end of the call is not known by it. No call takes longer than this.
        return Move(stage=Stage.CREATE, after=settings.create_settle_seconds, fields={"answered": latest})
    wait = over + settings.create_settle_seconds - job.now()
    if wait > 0:
        return Move(stage=Stage.CREATE, after=wait)
    wanted = runtime.display_name(job.record)
    listed = every(partial(provider.jobs, display_name=wanted), runtime.clock.keeper(job))
    found = [candidate for candidate in listed if candidate.display_name == wanted]
    reach("reconcile.after-list")
    if not found:
        log.info("job %s was not created; creating it again", job.record.id, extra=Event.JOB_NOT_CREATED.extra)
        doubtful = job.record.doubtful_creates + 1
        return Move(
            stage=Stage.CREATE, fields={"intent": None, "state": JobState.PLANNED, "doubtful_creates": doubtful}
        )
    chosen = job.record.adopted
    adopted = next((candidate for candidate in found if candidate.name == chosen), None) or max(found, key=_progress)
    if len(found) > 1:
        # Recorded first: a worker that sees them later, or wakes up late, must not choose the other.
        runtime.clock.keep(job, {"adopted": adopted.name})
    for twin in found:
        if twin is not adopted:
            remove_twin(provider, twin, job.record.id)
            reach("reconcile.after-twin-removed")
    log.info("job %s: adopted %s", job.record.id, adopted.name, extra=Event.JOB_ADOPTED.extra)
    runtime.admission.succeeded(job)
    return created(runtime, job, adopted, webhook=job.record.webhook)


def _ran_ahead(job: HeldJob) -> bool:
    """Whether more time has passed by Redis's clock, since the intent was written, than by those of the machines."""
    if job.record.intent_by_wall is None:
        return False
    by_redis, by_wall = job.now() - known(job.record.intent, "intent"), time.time() - job.record.intent_by_wall
    return by_redis - by_wall > _ALIKE_SECONDS


def _unbounded(runtime: Runtime, job: HeldJob) -> float:
    """The time when a call is over whose bound Redis does not know, because it went back in time."""
    return known(job.record.intent, "intent") + runtime.settings.provider_timeout_seconds


def created(runtime: Runtime, job: HeldJob, seen: ProviderJob, *, webhook: bool | None) -> JobMove:
    """Moves on to poll, with the provider's name for the job."""
    # An event may have come while the answer to the create call was lost.
    silent = runtime.hooks.silent() if webhook and job.record.hinted is None else None
    return Move(
        stage=Stage.POLL,
        after=runtime.poll_pause(0, silent=silent),
        fields={
            "name": seen.name,
            "state": JobState.PENDING if seen.state.terminal else seen.state,
            "provider_state": seen.provider_state,
            "created": job.now(),
            # What kept it from being created is over.
            "error": None,
        },
    )


def remove_twin(provider: Provider, twin: ProviderJob, job: str) -> None:
    """Stops and deletes a second provider job made for the same job."""
    log.warning("job %s: removing the surplus twin %s", job, twin.name, extra=Event.TWIN_REMOVED.extra)
    remove(provider, twin)


def remove(provider: Provider, seen: ProviderJob) -> None:
    """Stops and deletes a provider job."""
    if not seen.state.terminal:
        provider.cancel(seen.name)
    provider.delete(seen.name)


def _progress(job: ProviderJob) -> tuple[bool, bool, int]:
    """The progress of a job, to compare: first one with output, then a running one, then by requests done."""
    return job.output is not None, job.state in (JobState.RUNNING, JobState.SUCCEEDED), job.done_requests
