"""create: brings a job's requests to the provider, and never makes two paid jobs of one.

The provider has no idempotency key and names a job only in its answer. So the intent to create is durable
before the call, the call is made once, and where its outcome is unknown (no answer, a crash), all pages of the
provider's list are searched for our display name, after a settling time, before anything is created again.
"""

from __future__ import annotations

import io
import logging
import time
from typing import IO, cast

from lowtide.layout import BatchFiles, display_name
from lowtide.messages import Stage
from lowtide.requests import RequestReader
from lowtide.states import JobState, Mode
from lowtide_worker.clock import Held, Move
from lowtide_worker.ledger import Rows, encoded_error
from lowtide_worker.providers import NewJob, Provider, ProviderJob, Refused, Throttled, Unavailable
from lowtide_worker.runtime import Runtime
from lowtide_worker.slices import SpoolSlice

log = logging.getLogger(__name__)

_READY_POLL_SECONDS = 1.0


def create(runtime: Runtime, job: Held) -> Move:
    """Uploads a job's requests and creates it at the provider."""
    provider = runtime.provider(job.batch["provider"])
    if job.fields.get("intent"):
        return _reconcile(runtime, provider, job)
    if job.batch["cancel"] == "1":
        return Move(stage=Stage.SETTLE, fields={"state": JobState.CANCELLED})
    rows = runtime.ledger.rows(job)
    try:
        if Mode(job.batch["mode"]) is Mode.INLINE:
            new = NewJob(
                model=job.batch["model"],
                display_name=display_name(job.fields["id"]),
                lines=_lines(runtime, job, rows),
            )
        else:
            name = job.fields.get("input") or _upload(runtime, provider, job, rows)
            if not provider.ready(name):
                return Move(stage=Stage.CREATE, after=_READY_POLL_SECONDS)
            new = NewJob(model=job.batch["model"], display_name=display_name(job.fields["id"]), input=name)
    except Refused as refusal:
        return _refused(refusal)
    runtime.clock.keep(job, {"intent": time.time(), "state": JobState.CREATING})
    try:
        created = provider.create(new)
    except Throttled as throttled:
        tries = job.number("throttled")
        log.warning("job %s: the provider's quota is used up: %s", job.fields["id"], throttled)
        return Move(
            stage=Stage.CREATE,
            after=runtime.quota_backoff.seconds(tries),
            fields={"intent": "", "state": JobState.PLANNED, "throttled": tries + 1},
        )
    except Refused as refusal:
        return _refused(refusal)
    except Unavailable as unknown:
        log.warning("job %s: the outcome of its creation is unknown: %s", job.fields["id"], unknown)
        return Move(stage=Stage.CREATE, after=runtime.settings.create_settle_seconds)
    return _created(runtime, created)


def _upload(runtime: Runtime, provider: Provider, job: Held, rows: Rows) -> str:
    """Uploads the job's lines; a retry job's are gathered in the spool first."""
    files = BatchFiles(job.batch_id)
    reader = RequestReader(runtime.spool, job.batch_id)
    keep = runtime.clock.keeper(job)
    if rows.bitmap is None:
        name, span = files.requests, reader.byte_range(rows.first, rows.last)
    else:
        name = f"{files.job(job.number('number'))}/input.jsonl"
        with runtime.spool.write(name) as file:
            reader.copy_lines(rows.runs(), file)
            span = (0, file.tell())
    with runtime.spool.open(name) as file:
        uploaded = provider.upload(display_name(job.fields["id"]), cast("IO[bytes]", SpoolSlice(file, *span, keep)))
    runtime.clock.keep(job, {"input": uploaded})
    return uploaded


def _lines(runtime: Runtime, job: Held, rows: Rows) -> list[bytes]:
    """The lines of an inline job: under 20 MB, so they are held."""
    lines = io.BytesIO()
    RequestReader(runtime.spool, job.batch_id).copy_lines(rows.runs(), lines)
    return lines.getvalue().splitlines()


def _created(runtime: Runtime, created: ProviderJob) -> Move:
    return Move(
        stage=Stage.POLL,
        after=runtime.poll_backoff.seconds(0),
        fields={
            "name": created.name,
            "state": JobState.PENDING if created.state.terminal else created.state,
            "provider_state": created.provider_state,
            "created": time.time(),
        },
    )


def _refused(refusal: Refused) -> Move:
    return Move(
        stage=Stage.SETTLE,
        fields={"state": JobState.FAILED, "refused": 1, "error": encoded_error(refusal.error)},
    )


def _reconcile(runtime: Runtime, provider: Provider, job: Held) -> Move:
    """Finds out whether an earlier create went through, and only if it surely did not, starts again."""
    settle_until = float(job.fields["intent"]) + runtime.settings.create_settle_seconds
    wait = settle_until - time.time()
    if wait > 0:
        return Move(stage=Stage.CREATE, after=wait)
    keep = runtime.clock.keeper(job)
    wanted = display_name(job.fields["id"])
    found: list[ProviderJob] = []
    token = None
    while True:
        page, token = provider.jobs(token)
        found += [candidate for candidate in page if candidate.display_name == wanted]
        keep()
        if not token:
            break
    if not found:
        log.info("job %s was not created; creating it again", job.fields["id"])
        return Move(stage=Stage.CREATE, fields={"intent": "", "state": JobState.PLANNED})
    adopted = max(found, key=_progress)
    for twin in found:
        if twin is not adopted:
            log.warning("job %s: removing the surplus twin %s", job.fields["id"], twin.name)
            provider.cancel(twin.name)
            provider.delete(twin.name)
    log.info("job %s: adopted %s", job.fields["id"], adopted.name)
    return _created(runtime, adopted)


def _progress(job: ProviderJob) -> tuple[bool, bool, int]:
    """How far on a job is: one with output first, then a running one, then by requests done."""
    return job.output is not None, job.state in (JobState.RUNNING, JobState.SUCCEEDED), job.done_requests
