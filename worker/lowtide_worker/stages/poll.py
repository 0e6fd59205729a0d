"""poll: fetches a job's state from the provider, and does so again after growing pauses."""

from __future__ import annotations

import logging
from dataclasses import replace

from lowtide.models import ResultError
from lowtide.protocol import Stage
from lowtide.protocol.changes import JobChange
from lowtide.states import JobState
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.providers import Missing, Provider, ProviderJob
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import HeldJob, JobMove, Move, bounded, known

log = logging.getLogger(__name__)

_SILENT = "no events of the provider come, so it is polled: check LOWTIDE_WEBHOOK_URL and your hooks application"
_LATE = 30
"""An event is missed if a job's end is older than this part of the rare polls' pause: 30 s of 900 s."""
_NEAR_SECONDS = 600.0
"""For so long after an event of a job its end is taken to be near."""
_ALONE = 8
"""Every eighth poll fetches the job itself instead of trusting the provider's list."""


def poll(runtime: Runtime, job: HeldJob) -> JobMove:
    """Fetches a job's state once."""
    provider = runtime.provider(job.batch.provider)
    age = job.age_of(known(job.record.created, "created"))
    # A list may lag behind, also behind an event that has come, so now and then the job itself is fetched.
    listed = job.record.provider_state if job.record.polls % _ALONE and job.record.hinted is None else None
    try:
        seen = runtime.job_lookup(job.batch.provider).get(known(job.record.name, "name"), listed)
    except Missing as missing:
        return _missing(runtime, job, missing)
    reach("poll.after-get")
    fields: JobChange = {
        "state": seen.state,
        "provider_state": seen.provider_state,
        "polls": job.record.polls + 1,
        "done_requests": seen.done_requests,
        "seen": job.now(),
        "missing_since": None,
    }
    if job.record.missing_since or job.record.problem == _SILENT:
        fields["problem"] = None
    if seen.state.terminal:
        return _ended(runtime, job, seen, fields)
    if seen.state is JobState.UNKNOWN and job.record.provider_state != seen.provider_state:
        log.warning(
            "job %s: unknown state %r; it will be polled again",
            job.record.id,
            seen.provider_state,
            extra=Event.JOB_UNKNOWN_STATE.extra,
        )
    overdue = age > runtime.settings.job_deadline_seconds
    if overdue or job.batch.cancel:
        return _stopping(runtime, provider, job, fields, overdue=overdue)
    hinted = job.record.hinted
    if hinted is not None and job.now() - hinted < _NEAR_SECONDS:
        # The provider's answer lags behind its event: the pauses do not grow.
        return Move(stage=Stage.POLL, after=runtime.poll_backoff.seconds(0), fields=fields)
    # If the end is not to be seen so long after an event, the job is polled like one without a webhook.
    expects = job.record.webhook and hinted is None
    silent = runtime.hooks.silent() if expects else None
    if silent:
        fields["problem"] = _SILENT
    return Move(stage=Stage.POLL, after=runtime.poll_pause(job.record.polls + 1, silent=silent), fields=fields)


def _missing(runtime: Runtime, job: HeldJob, missing: Missing) -> JobMove:
    """Waits until it is sure that a job is lost.

    Reads may lag behind a create, or miss a job that is there: only a job that stays missing is lost. And a key of
    another project finds none of Lowtide's jobs: a job is lost only if one that was there before is still seen.
    """
    settings, now = runtime.settings, job.now()
    created = known(job.record.created, "created")
    since = job.noted(job.record.missing_since)
    fields: JobChange = {"missing_since": since}
    later: JobMove = Move(stage=Stage.POLL, after=runtime.poll_backoff.seconds(0), fields=fields)
    if now - since < settings.create_settle_seconds:
        return later
    last = job.record.seen or created
    # There is no reason to wait for a job that is to be cancelled, or that is past its deadline.
    awaited = not job.batch.cancel and job.age_of(created) <= settings.job_deadline_seconds
    patient = awaited and now - since < settings.missing_job_seconds
    if patient and not runtime.ledger.sees_jobs(job, before=last, after=since):
        problem = f"{job.batch.provider} does not know any of our jobs: is it the right key, or the right project?"
        log.error("job %s: %s", job.record.id, problem, extra=Event.PROVIDER_WRONG_ACCOUNT.extra)
        fields["problem"] = problem
        return replace(later, after=runtime.poll_backoff.seconds(job.record.polls + 1))
    log.warning(
        "job %s: the provider does not know %s any more", job.record.id, job.record.name, extra=Event.JOB_LOST.extra
    )
    return _settled(runtime, job, {"state": JobState.LOST, "error": bounded(missing.error)})


def _stopping(runtime: Runtime, provider: Provider, job: HeldJob, fields: JobChange, *, overdue: bool) -> JobMove:
    """Asks the provider to cancel a job once, and gives it a while to do so."""
    if not job.record.cancel_sent:
        provider.cancel(known(job.record.name, "name"))
        reach("poll.after-cancel")
        fields["cancel_sent"] = job.now()
        # The end is near now, so the pauses start over.
        return Move(stage=Stage.POLL, after=runtime.poll_backoff.seconds(0), fields=fields)
    sent = fields["cancel_sent"] = job.noted(job.record.cancel_sent)
    if overdue and job.now() - sent > runtime.settings.output_grace_seconds:
        log.warning(
            "job %s: still %s after its cancel; given up",
            job.record.id,
            fields["provider_state"],
            extra=Event.JOB_CANCEL_IGNORED.extra,
        )
        return _settled(runtime, job, {**fields, "state": JobState.EXPIRED})
    polls = min(job.record.polls, 3)
    return Move(stage=Stage.POLL, after=runtime.poll_backoff.seconds(polls), fields=fields)


def _ended(runtime: Runtime, job: HeldJob, seen: ProviderJob, fields: JobChange) -> JobMove:
    if not job.record.ended:
        log.info("job %s: %s at the provider", job.record.id, seen.state, extra=Event.JOB_ENDED.extra)
    ended = fields["ended"] = job.noted(job.record.ended)
    # The provider calls it an error that a job was cancelled. It is none where Lowtide asked for it.
    asked = seen.state is JobState.CANCELLED and (job.batch.cancel or job.record.cancel_sent)
    # Whether a cancel is reported is not certain.
    if job.record.webhook and not job.record.ended and seen.state is not JobState.CANCELLED:
        _expect_event(runtime, job, seen)
    if seen.error is not None and not asked:
        fields["error"] = bounded(seen.error)
    if seen.output is not None:
        runtime.admission.release(job)
        reach("poll.after-release")
        return Move(stage=Stage.COLLECT, fields={**fields, "output": seen.output})
    if seen.state in (JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED):
        # Known misbehaviour: the output may appear some minutes after the state.
        if job.now() - ended < runtime.settings.output_grace_seconds:
            return Move(stage=Stage.POLL, after=runtime.poll_backoff.seconds(0), fields=fields)
        never = ResultError(reason="NO_OUTPUT", message="the job succeeded but its output never came")
        return _settled(runtime, job, {**fields, "state": JobState.LOST, "error": bounded(never)})
    return _settled(runtime, job, fields)


def _expect_event(runtime: Runtime, job: HeldJob, seen: ProviderJob) -> None:
    """Notes an event that should have come before this poll: jobs are polled as often as without a webhook then."""
    if job.record.hinted is not None:
        return
    late = runtime.settings.poll_with_webhook_seconds / _LATE
    if seen.end_time is not None and job.now() - seen.end_time < late:
        return
    if runtime.hooks.missed(job):
        log.warning("job %s has ended without an event: %s", job.record.id, _SILENT, extra=Event.HOOKS_SILENT.extra)


def _settled(runtime: Runtime, job: HeldJob, fields: JobChange) -> JobMove:
    runtime.admission.release(job)
    return Move(stage=Stage.SETTLE, fields=fields)
