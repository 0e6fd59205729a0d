"""poll: asks the provider how a job is doing, and puts itself back on the clock, later and later."""

from __future__ import annotations

import logging
import time

from lowtide.messages import Stage
from lowtide.models import ResultError
from lowtide.states import JobState
from lowtide_worker.clock import Held, Move
from lowtide_worker.ledger import encoded_error
from lowtide_worker.providers import Missing, ProviderJob
from lowtide_worker.runtime import Runtime

log = logging.getLogger(__name__)


def poll(runtime: Runtime, job: Held) -> Move:
    """Looks at a job once."""
    provider = runtime.provider(job.batch["provider"])
    try:
        seen = provider.get(job.fields["name"])
    except Missing as missing:
        log.warning("job %s: the provider does not know %s any more", job.fields["id"], job.fields["name"])
        return Move(stage=Stage.SETTLE, fields={"state": JobState.LOST, "error": encoded_error(missing.error)})
    polls = job.number("polls") + 1
    fields = {
        "state": seen.state,
        "provider_state": seen.provider_state,
        "polls": polls,
        "done_requests": seen.done_requests,
    }
    if seen.state.terminal:
        return _ended(runtime, job, seen, fields)
    if seen.state is JobState.UNKNOWN and job.fields.get("provider_state") != seen.provider_state:
        log.warning("job %s: unknown state %r; polling on", job.fields["id"], seen.provider_state)
    if job.batch["cancel"] == "1" and not job.number("cancel_sent"):
        provider.cancel(seen.name)
        # The end is near now, so the pauses start over.
        return Move(stage=Stage.POLL, after=runtime.poll_backoff.seconds(0), fields={**fields, "cancel_sent": 1})
    return Move(stage=Stage.POLL, after=runtime.poll_backoff.seconds(polls), fields=fields)


def _ended(runtime: Runtime, job: Held, seen: ProviderJob, fields: dict[str, object]) -> Move:
    fields["ended"] = job.fields.get("ended") or time.time()
    if seen.error is not None:
        fields["error"] = encoded_error(seen.error)
    if seen.output is not None:
        return Move(stage=Stage.COLLECT, fields={**fields, "output": seen.output})
    if seen.state in (JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED):
        # Known misbehaviour: the output may appear some minutes after the state.
        waited = time.time() - float(str(fields["ended"]))
        if waited < runtime.settings.output_grace_seconds:
            return Move(stage=Stage.POLL, after=runtime.poll_backoff.seconds(0), fields=fields)
        missing = ResultError(reason="NO_OUTPUT", message="the job succeeded but its output never came")
        fields["error"] = encoded_error(missing)
    return Move(stage=Stage.SETTLE, fields=fields)
