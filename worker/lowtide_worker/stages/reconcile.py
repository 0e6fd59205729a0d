"""reconcile, the second half of create: finds out what became of a create whose outcome is unknown.

After a settling time, all pages of the provider's list are searched for our display name. What is found is adopted;
surplus twins are cancelled and deleted; only when nothing is there is the job created again.
"""

from __future__ import annotations

import logging
from functools import partial

from lowtide.protocol import Stage
from lowtide.states import JobState
from lowtide_worker.crashpoints import reach
from lowtide_worker.providers import Provider, ProviderJob, every
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Held, Move

log = logging.getLogger(__name__)


def reconcile(runtime: Runtime, provider: Provider, job: Held) -> Move:
    """Adopts the provider job of an earlier create, or starts again if there surely is none."""
    settings = runtime.settings
    # A call of which nobody knows how it ended may be under way still, in a worker that lost its lease.
    over = float(job.fields.get("answered") or job.fields.get("intent_until") or _unbounded(runtime, job))
    wait = over + settings.create_settle_seconds - job.now()
    if wait > 0:
        return Move(stage=Stage.CREATE, after=wait)
    wanted = runtime.display_name(job.fields)
    listed = every(partial(provider.jobs, display_name=wanted), runtime.clock.keeper(job))
    found = [candidate for candidate in listed if candidate.display_name == wanted]
    reach("reconcile.after-list")
    if not found:
        log.info("job %s was not created; creating it again", job.fields["id"])
        return Move(stage=Stage.CREATE, fields={"intent": "", "state": JobState.PLANNED})
    chosen = job.fields.get("adopted")
    adopted = next((candidate for candidate in found if candidate.name == chosen), None) or max(found, key=_progress)
    if len(found) > 1:
        # Written down first: one who sees them later, or wakes up late, must not choose the other.
        runtime.clock.keep(job, {"adopted": adopted.name})
    for twin in found:
        if twin is not adopted:
            remove_twin(provider, twin, job.fields["id"])
            reach("reconcile.after-twin-removed")
    log.info("job %s: adopted %s", job.fields["id"], adopted.name)
    runtime.admission.succeeded(job)
    return created(runtime, job, adopted)


def _unbounded(runtime: Runtime, job: Held) -> float:
    """When the call of an earlier version was over, which wrote no bound down."""
    return float(job.fields["intent"]) + runtime.settings.provider_timeout_seconds


def created(runtime: Runtime, job: Held, seen: ProviderJob) -> Move:
    """On to polling, with the provider's name for the job."""
    return Move(
        stage=Stage.POLL,
        after=runtime.poll_backoff.seconds(0),
        fields={
            "name": seen.name,
            "state": JobState.PENDING if seen.state.terminal else seen.state,
            "provider_state": seen.provider_state,
            "created": job.now(),
        },
    )


def remove_twin(provider: Provider, twin: ProviderJob, job: str) -> None:
    """Stops and deletes a second provider job made for the same job."""
    log.warning("job %s: removing the surplus twin %s", job, twin.name)
    if not twin.state.terminal:
        provider.cancel(twin.name)
    provider.delete(twin.name)


def _progress(job: ProviderJob) -> tuple[bool, bool, int]:
    """How far on a job is: one with output first, then a running one, then by requests done."""
    return job.output is not None, job.state in (JobState.RUNNING, JobState.SUCCEEDED), job.done_requests
