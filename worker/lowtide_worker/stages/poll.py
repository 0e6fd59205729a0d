"""poll: asks the provider how a job is doing, and puts itself back on the clock, later and later."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from lowtide.models import ResultError
from lowtide.protocol import Stage
from lowtide.states import JobState
from lowtide_worker.crashpoints import reach
from lowtide_worker.providers import Missing, Provider, ProviderJob
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Held, Move, encoded_error

log = logging.getLogger(__name__)

_ALONE = 8
"""Every so many looks at a job, its provider's list is not believed."""


def poll(runtime: Runtime, job: Held) -> Move:
    """Looks at a job once."""
    provider = runtime.provider(job.batch["provider"])
    age = job.now() - float(job.fields["created"])
    # A list may lag behind, so now and then the job itself is asked.
    known = job.fields.get("provider_state") if job.number("polls") % _ALONE else None
    try:
        seen = runtime.job_lookup(job.batch["provider"]).get(job.fields["name"], known)
    except Missing as missing:
        return _missing(runtime, job, missing)
    reach("poll.after-get")
    fields = {
        "state": seen.state,
        "provider_state": seen.provider_state,
        "polls": job.number("polls") + 1,
        "done_requests": seen.done_requests,
        "seen": job.now(),
        "missing_since": "",
    }
    if job.fields.get("missing_since"):
        fields["problem"] = ""
    if seen.state.terminal:
        return _ended(runtime, job, seen, fields)
    if seen.state is JobState.UNKNOWN and job.fields.get("provider_state") != seen.provider_state:
        log.warning("job %s: unknown state %r; polling on", job.fields["id"], seen.provider_state)
    overdue = age > runtime.settings.job_deadline_seconds
    if overdue or job.batch["cancel"] == "1":
        return _stopping(runtime, provider, job, fields, overdue=overdue)
    return Move(stage=Stage.POLL, after=runtime.poll_backoff.seconds(job.number("polls") + 1), fields=fields)


def _missing(runtime: Runtime, job: Held, missing: Missing) -> Move:
    """Waits until it is sure that a job is lost.

    Reads may lag behind a create, or fail to find what is there: only what stays missing is lost. And a key of another
    project finds none of our jobs: one is lost only if a job that was there before is still seen.
    """
    settings, now = runtime.settings, job.now()
    since = float(job.fields.get("missing_since") or now)
    fields: dict[str, Any] = {"missing_since": since}
    later = Move(stage=Stage.POLL, after=runtime.poll_backoff.seconds(0), fields=fields)
    if now - since < settings.create_settle_seconds:
        return later
    last = float(job.fields.get("seen") or job.fields["created"])
    # Nobody waits for a job that is to be cancelled, or that is past its deadline.
    awaited = job.batch["cancel"] != "1" and now - float(job.fields["created"]) <= settings.job_deadline_seconds
    patient = awaited and now - since < settings.missing_job_seconds
    if patient and not runtime.ledger.sees_jobs(job, before=last, after=since):
        problem = f"{job.batch['provider']} does not know any of our jobs: is it the right key, or the right project?"
        log.error("job %s: %s", job.fields["id"], problem)
        fields["problem"] = problem
        return replace(later, after=runtime.poll_backoff.seconds(job.number("polls") + 1))
    log.warning("job %s: the provider does not know %s any more", job.fields["id"], job.fields["name"])
    return _settled(runtime, job, {"state": JobState.LOST, "error": encoded_error(missing.error)})


def _stopping(runtime: Runtime, provider: Provider, job: Held, fields: dict[str, Any], *, overdue: bool) -> Move:
    """Asks the provider to stop a job once, and gives it a while to obey."""
    if not job.fields.get("cancel_sent"):
        provider.cancel(job.fields["name"])
        reach("poll.after-cancel")
        fields["cancel_sent"] = job.now()
        # The end is near now, so the pauses start over.
        return Move(stage=Stage.POLL, after=runtime.poll_backoff.seconds(0), fields=fields)
    patience = runtime.settings.output_grace_seconds
    if overdue and job.now() - float(job.fields["cancel_sent"]) > patience:
        log.warning("job %s: still %s after its cancel; given up", job.fields["id"], fields["provider_state"])
        return _settled(runtime, job, {**fields, "state": JobState.EXPIRED})
    polls = min(job.number("polls"), 3)
    return Move(stage=Stage.POLL, after=runtime.poll_backoff.seconds(polls), fields=fields)


def _ended(runtime: Runtime, job: Held, seen: ProviderJob, fields: dict[str, Any]) -> Move:
    fields["ended"] = job.fields.get("ended") or job.now()
    if seen.error is not None:
        fields["error"] = encoded_error(seen.error)
    if seen.output is not None:
        runtime.admission.release(job)
        reach("poll.after-release")
        return Move(stage=Stage.COLLECT, fields={**fields, "output": seen.output})
    if seen.state in (JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED):
        # Known misbehaviour: the output may appear some minutes after the state.
        if job.now() - float(fields["ended"]) < runtime.settings.output_grace_seconds:
            return Move(stage=Stage.POLL, after=runtime.poll_backoff.seconds(0), fields=fields)
        never = ResultError(reason="NO_OUTPUT", message="the job succeeded but its output never came")
        fields |= {"state": JobState.LOST, "error": encoded_error(never)}
    return _settled(runtime, job, fields)


def _settled(runtime: Runtime, job: Held, fields: dict[str, Any]) -> Move:
    runtime.admission.release(job)
    return Move(stage=Stage.SETTLE, fields=fields)
