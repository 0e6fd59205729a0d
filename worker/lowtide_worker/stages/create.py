"""create: brings a job's requests to the provider, and never makes two paid jobs of one.

The provider has no idempotency key and names a job only in its answer. So the intent to create is durable before
the call, in Redis and in the spool, the call is made once, and where its outcome is unknown (no answer, a crash, a
Redis that has forgotten), the job goes to reconcile before anything is created again.
"""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from typing import IO, cast

from lowtide.protocol import BatchFiles, Stage
from lowtide.spool import RequestReader
from lowtide.states import JobState, Kind, Mode
from lowtide_worker.crashpoints import reach
from lowtide_worker.deadlines import Deadline
from lowtide_worker.in_place import copy_lines, in_place, lines_elsewhere, source_uris
from lowtide_worker.intents import Intent, forgotten_intent, next_intent, take_back_intent, write_intent
from lowtide_worker.providers import Denied, Missing, NewJob, Provider, Refused, SpoolSlice, Throttled, Unavailable
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.reconcile import created, reconcile
from lowtide_worker.state import Fields, Held, Move, Rows, Superseded, encoded_error

log = logging.getLogger(__name__)

_READY_POLL_SECONDS = 1.0
_WAITING_SECONDS = 1800.0
"""A job without a slot is woken when its turn comes; this is for the case that nobody woke it."""


def create(runtime: Runtime, job: Held) -> Move:
    """Uploads a job's requests and creates it at the provider, once it has a slot there."""
    if job.fields.get("intent"):
        return reconcile(runtime, runtime.provider(job.batch["provider"]), job)
    if intent := forgotten_intent(runtime, job):
        log.warning("job %s: Redis has forgotten that it was to be created", job.fields["id"])
        return Move(stage=Stage.CREATE, fields={**_intended(job, intent), "intent_until": ""})
    if job.batch["cancel"] == "1":
        runtime.admission.release(job)
        return Move(stage=Stage.SETTLE, fields={"state": JobState.CANCELLED})
    provider = runtime.provider(job.batch["provider"])
    if not runtime.admission.admit(job):
        return Move(stage=Stage.CREATE, after=_WAITING_SECONDS)
    reach("create.after-admission")
    try:
        new = _prepared(runtime, provider, job)
    except Missing:
        # The uploaded file is gone (they live 48 hours): bring it again.
        return Move(stage=Stage.CREATE, after=runtime.retry_backoff.seconds(0), fields={"input": ""})
    except Refused as refusal:
        return _refused(runtime, job, refusal)
    if new is None:
        return Move(stage=Stage.CREATE, after=_READY_POLL_SECONDS)
    reach("create.before-intent")
    bound = runtime.settings.call_seconds(new.size)
    # It begins before the intent is written, so that it ends before anybody believes that the call is over.
    deadline = Deadline(bound)
    until = job.now() + bound
    intent = next_intent(runtime, job)
    # Whoever was superseded during the upload must not write over another's intent, or bring it back after its clean.
    runtime.clock.keep(job)
    write_intent(runtime, job, intent)
    reach("create.after-intent-written")
    try:
        runtime.clock.keep_durably(job, {**_intended(job, intent), "intent_until": until})
    except Superseded:
        take_back_intent(runtime, job, intent)
        raise
    reach("create.before-call")
    try:
        seen = provider.create(new, deadline)
    except Throttled as throttled:
        log.warning("job %s: the provider's quota is used up: %s", job.fields["id"], throttled)
        runtime.admission.throttled(job)
        tries = job.number("throttled")
        return Move(
            stage=Stage.CREATE,
            after=runtime.quota_backoff.seconds(tries),
            fields={"intent": "", "state": JobState.PLANNED, "throttled": tries + 1},
        )
    except Denied as denied:
        log.error("job %s: %s", job.fields["id"], denied)  # noqa: TRY400 - the trace says nothing more
        return Move(
            stage=Stage.CREATE,
            after=runtime.quota_backoff.seconds(0),
            fields={"intent": "", "state": JobState.PLANNED, "problem": str(denied)},
        )
    except Refused as refusal:
        return _refused(runtime, job, refusal)
    except Unavailable as unknown:
        log.warning("job %s: the outcome of its creation is unknown: %s", job.fields["id"], unknown)
        return Move(stage=Stage.CREATE, after=runtime.settings.create_settle_seconds, fields={"answered": job.now()})
    reach("create.after-call")
    runtime.admission.succeeded(job)
    return created(runtime, job, seen)


def _intended(job: Held, intent: Intent) -> Fields:
    """Fields that tell Redis of an intent."""
    return {
        "intent": job.now(),
        "answered": "",
        "state": JobState.CREATING,
        "creates": intent.number,
        "display_name": intent.display_name,
    }


def _prepared(runtime: Runtime, provider: Provider, job: Held) -> NewJob | None:
    """What to create, its input uploaded; None while the provider is still reading the input."""
    rows = runtime.ledger.rows(job)
    name = runtime.display_name(job.fields)
    new = NewJob(
        model=job.batch["model"], display_name=name, kind=Kind(job.batch.get("kind") or Kind.GENERATION),
        destination=job.batch.get("destination") or None,
    )  # fmt: skip
    if in_place(job.batch, job.fields):
        return replace(new, sources=source_uris(job.batch))
    if Mode(job.batch["mode"]) is Mode.INLINE:
        lines = _lines(runtime, job, rows)
        return replace(new, lines=lines, size=sum(map(_most_bytes, lines)))
    uploaded = job.fields.get("input") or _upload(runtime, provider, job, rows)
    return replace(new, input=uploaded) if provider.ready(uploaded) else None


def _upload(runtime: Runtime, provider: Provider, job: Held, rows: Rows) -> str:
    """Uploads the job's lines; a retry job's are gathered in the spool first."""
    files = BatchFiles(job.batch_id)
    reader = RequestReader(runtime.spool, job.batch_id)
    keep = runtime.clock.keeper(job)
    display_name = runtime.display_name(job.fields)
    if rows.bitmap is None:
        name, span = files.requests, reader.byte_range(rows.first, rows.last)
    else:
        name = f"{files.job(job.number('number'))}/input.jsonl"
        keep()
        with runtime.spool.write(name) as file:
            if lines_elsewhere(job.batch):
                copy_lines(provider, job.batch, reader, rows.runs(), file, keep)
            else:
                reader.copy_lines(rows.runs(), file)
            span = (0, file.tell())
    reach("create.before-upload")
    keep()
    with runtime.spool.open(name) as file:
        lines = cast("IO[bytes]", SpoolSlice(file, *span, keep))
        uploaded = provider.upload(display_name, lines)
    reach("create.after-upload")
    runtime.clock.keep(job, {"input": uploaded, "display_name": display_name})
    reach("create.after-input-recorded")
    return uploaded


def _lines(runtime: Runtime, job: Held, rows: Rows) -> list[bytes]:
    """The lines of an inline job: under 20 MB, so they are held."""
    lines = io.BytesIO()
    RequestReader(runtime.spool, job.batch_id).copy_lines(rows.runs(), lines)
    return lines.getvalue().splitlines()


def _most_bytes(line: bytes) -> int:
    """Bytes that a line may need on the wire, where the SDK writes all but ASCII as escapes of six."""
    return len(line) if line.isascii() else 3 * len(line)


def _refused(runtime: Runtime, job: Held, refusal: Refused) -> Move:
    runtime.admission.release(job)
    return Move(
        stage=Stage.SETTLE,
        fields={"state": JobState.FAILED, "refused": 1, "error": encoded_error(refusal.error)},
    )
