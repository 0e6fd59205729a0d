"""create: uploads a job's requests to the provider, and never makes two paid jobs of one.

The provider has no idempotency key and names a job only in its answer. So the intent to create is durable before the
call, in Redis and in the spool, and the call is made once. Where its outcome is unknown (no answer, a crash, a Redis
that went back in time), the job goes to reconcile before anything is created again.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import IO, cast

from lowtide.models import ResultError
from lowtide.protocol import WEBHOOK_METADATA_KEY, BatchFiles, Stage
from lowtide.protocol.changes import JobChange
from lowtide.spool import DamagedBlob, RequestReader
from lowtide.states import JobState, Mode
from lowtide.text import counted
from lowtide_worker.bundling import batches_with
from lowtide_worker.crashpoints import reach
from lowtide_worker.deadlines import Deadline
from lowtide_worker.events import Event
from lowtide_worker.in_place import copy_lines, in_place, lines_elsewhere
from lowtide_worker.intents import Intent, forgotten_intent, next_intent, take_back_intent, write_intent
from lowtide_worker.partial_answers import ContinuedLines, PartialAnswers
from lowtide_worker.providers import (
    Denied,
    Missing,
    NewJob,
    Provider,
    Refused,
    SpoolSlice,
    Throttled,
    Unavailable,
    Uploaded,
    Webhook,
)
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.division import divide, narrow, tokens_of
from lowtide_worker.stages.lost_requests import end_uncreated, with_damage_over
from lowtide_worker.stages.overdue import BUDGET, overdue
from lowtide_worker.stages.reconcile import created, reconcile
from lowtide_worker.state import (
    Admitted,
    BudgetSpentError,
    BundledBatch,
    HeldJob,
    JobBudget,
    JobMove,
    JobTokens,
    Move,
    Ordinals,
    Superseded,
    UnknownPriceError,
    bounded,
)

log = logging.getLogger(__name__)

_READY_POLL_SECONDS = 1.0
_PRICE_SECONDS = 300.0
"""The pause after which a job without a price asks again: a worker that was started since may know one."""
_WAITING_SECONDS = 1800.0
"""A job without a slot is woken when its turn comes; after this pause it asks again all the same."""


def create(runtime: Runtime, job: HeldJob) -> JobMove:
    """Uploads a job's requests and creates it at the provider, once it has a slot there."""
    if job.record.intent:
        return reconcile(runtime, runtime.provider(job.batch.provider), job)
    try:
        return with_damage_over(runtime, job, _create(runtime, job))
    except DamagedBlob as damaged:
        record = runtime.ledger.job(job.record.id)
        if record is None or record.intent:
            # A call may have been made.
            raise
        with suppress(DamagedBlob):
            if forgotten := forgotten_intent(runtime, job):
                return _forgotten(job, forgotten)
        return end_uncreated(runtime, job, damaged)


def _create(runtime: Runtime, job: HeldJob) -> JobMove:
    left = -job.age_of(runtime.settings.deadline_of(job.batch))
    if move := _unwanted(runtime, job, left):
        return move
    provider = runtime.provider(job.batch.provider)
    # One for all that follows: of a small batch it reads the spool once.
    reader = runtime.requests.of(job.batch)
    budgets = runtime.admission.budgets(job, _shared(runtime, job))
    size = tokens_of(runtime, job, reader, output=bool(budgets))
    granted = _admitted(runtime, job, size, budgets, left)
    if isinstance(granted, Move):
        return granted
    reach("create.after-admission")
    if not granted.whole and divide(runtime, job, reader, granted):
        # It is read again, with the requests that are left to it.
        return Move(stage=Stage.CREATE)
    try:
        new = _prepared(runtime, provider, job, reader)
    except Missing:
        # The uploaded file is gone (files live 48 hours): upload it again.
        return Move(stage=Stage.CREATE, after=runtime.retry_backoff.seconds(0), fields={"input": None})
    except Refused as refusal:
        return _refused(runtime, job, refusal)
    if new is None:
        return Move(stage=Stage.CREATE, after=_READY_POLL_SECONDS)
    # Before the intent: what follows it has one bound, and a token may take longer.
    provider.authorize()
    reach("create.before-intent")
    bound = runtime.settings.call_seconds(new.size)
    # It begins before the intent is written, so that it ends before any worker assumes that the call is over.
    deadline = Deadline(bound)
    if move := _record_intent(runtime, job, new, until=job.now() + bound):
        return move
    reach("create.before-call")
    return _call(runtime, provider, job, new, deadline, left)


def _unwanted(runtime: Runtime, job: HeldJob, left: float) -> JobMove | None:
    """The next move of a job that is not to be created any more, or not as it is; None for any other.

    `left` is the time to its deadline.
    """
    if not job.batch.cancel and left > 0:
        return narrow(runtime, job) if job.batch.bundled else None
    if forgotten := forgotten_intent(runtime, job):
        return _forgotten(job, forgotten)
    runtime.admission.release(job)
    if job.batch.cancel:
        # What kept it from being created is no error of a batch that was cancelled.
        return Move(stage=Stage.SETTLE, fields={"state": JobState.CANCELLED, "error": None})
    log.warning("job %s: its batch is past its deadline", job.record.id, extra=Event.CREATE_OVERDUE.extra)
    return Move(stage=Stage.SETTLE, fields={"state": JobState.EXPIRED, "error": overdue(job)})


def _shared(runtime: Runtime, job: HeldJob) -> Sequence[BundledBatch]:
    """The batches of a bundle whose requests a job carries, where a worker keeps budgets; none for any other job."""
    batch = job.batch
    if not batch.bundled or not runtime.settings.budgets:
        return ()
    return batches_with(runtime.ledger.carried(job), runtime.batches_of(batch.id, batch.bundled, batch.total))


def _admitted(
    runtime: Runtime, job: HeldJob, size: JobTokens, budgets: Sequence[JobBudget], left: float
) -> Admitted | JobMove:
    """The part of a job that may be sent now, with its slot; the next move of a job that gets none."""
    try:
        granted = runtime.admission.admit(job, size, budgets)
    except (BudgetSpentError, UnknownPriceError) as lacks:
        return _out_of_budget(runtime, job, lacks, left)
    if granted.tokens:
        return granted
    if budgets and (forgotten := forgotten_intent(runtime, job)):
        # The provider has it already, so no budget may keep its rows away. Others have its place in the line.
        runtime.admission.release(job)
        return _forgotten(job, forgotten)
    next_period = min((budget.until - job.now() for budget in budgets if budget.until), default=left)
    return Move(stage=Stage.CREATE, after=max(1.0, min(_WAITING_SECONDS, left, next_period)))


def _record_intent(runtime: Runtime, job: HeldJob, new: NewJob, *, until: float) -> JobMove | None:
    """Records the intent to create a job, in the spool and in Redis.

    Returns the move to reconcile instead, where the spool has an intent that Redis has forgotten. `until` is when the
    call is over at the latest.
    """
    intent = next_intent(runtime, job)
    # A worker that was superseded during the upload must not overwrite another's intent, or write one after the clean.
    runtime.clock.keep(job)
    if forgotten := write_intent(runtime, job, intent):
        return _forgotten(job, forgotten)
    reach("create.after-intent-written")
    try:
        runtime.clock.keep_durably(job, _intended(job, intent, until=until) | _with_webhook(job, new))
    except Superseded:
        take_back_intent(runtime, job, intent)
        raise
    return None


def _call(runtime: Runtime, provider: Provider, job: HeldJob, new: NewJob, deadline: Deadline, left: float) -> JobMove:
    """Makes the one create call, behind its intent, and decides what its answer means."""
    try:
        seen = provider.create(new, deadline)
    except Throttled as throttled:
        return _throttled(runtime, job, throttled, left)
    except Denied as denied:
        log.error("job %s: %s", job.record.id, denied, extra=Event.CREATE_DENIED.extra)  # noqa: TRY400 - the trace says nothing more
        # Other models may be allowed.
        runtime.admission.withdraw(job)
        return Move(
            stage=Stage.CREATE,
            after=min(runtime.quota_backoff.seconds(0), max(1.0, left)),
            fields={
                "intent": None,
                "state": JobState.PLANNED,
                "problem": str(denied),
                "error": bounded(denied.error),
            },
        )
    except Refused as refusal:
        if new.webhook is not None:
            return _without_webhook(job, refusal)
        return _refused(runtime, job, refusal)
    except Unavailable as unknown:
        log.warning(
            "job %s: the outcome of its creation is unknown: %s",
            *(job.record.id, unknown),
            extra=Event.CREATE_UNKNOWN.extra,
        )
        return Move(stage=Stage.CREATE, after=runtime.settings.create_settle_seconds, fields={"answered": job.now()})
    reach("create.after-call")
    log.info(
        "job %s: created as %s, with %s",
        *(job.record.id, seen.name, counted(job.record.requests, "request")),
        extra=Event.JOB_CREATED.extra,
    )
    runtime.admission.succeeded(job)
    return created(runtime, job, seen, webhook=new.webhook is not None)


def _throttled(runtime: Runtime, job: HeldJob, throttled: Throttled, left: float) -> JobMove:
    """Waits, and lowers the limits: the provider has no quota left for a job."""
    log.warning(
        "job %s: the provider's quota is used up: %s", job.record.id, throttled, extra=Event.CREATE_THROTTLED.extra
    )
    tries = job.record.throttled
    runtime.admission.throttled(job)
    return Move(
        stage=Stage.CREATE,
        after=min(runtime.quota_backoff.seconds(tries), max(1.0, left)),
        fields={
            "intent": None,
            "state": JobState.PLANNED,
            "throttled": tries + 1,
            "problem": str(throttled),
            "error": bounded(throttled.error),
        },
    )


def _webhook(runtime: Runtime, provider: Provider, job: HeldJob) -> Webhook | None:
    """The webhook to create a job with."""
    url = runtime.settings.webhook_url
    if url is None or job.record.webhook is False or not provider.has_webhooks(job.batch.kind):
        return None
    return Webhook(url, {WEBHOOK_METADATA_KEY: job.record.id})


def _with_webhook(job: HeldJob, new: NewJob) -> JobChange:
    return {"webhook": new.webhook is not None} if new.webhook or job.record.webhook else {}


def _without_webhook(job: HeldJob, refusal: Refused) -> JobMove:
    """Creates a job again that was refused: its webhook may be the reason, and must not cost the batch."""
    log.warning(
        "job %s: it was refused with a webhook, and is created again without one: %s",
        *(job.record.id, refusal),
        extra=Event.CREATE_WITHOUT_WEBHOOK.extra,
    )
    return Move(stage=Stage.CREATE, fields={"intent": None, "state": JobState.PLANNED, "webhook": False})


def _out_of_budget(runtime: Runtime, job: HeldJob, lacks: BudgetSpentError | UnknownPriceError, left: float) -> JobMove:
    """Fails a job, or has it wait, that a budget does not pay for; unless the provider may have it already."""
    if forgotten := forgotten_intent(runtime, job):
        return _forgotten(job, forgotten)
    if isinstance(lacks, BudgetSpentError):
        return _refused(runtime, job, Refused(ResultError(reason=BUDGET, message=f"not sent: {lacks}")))
    log.error("job %s: %s", job.record.id, lacks, extra=Event.CREATE_WITHOUT_PRICE.extra)
    return Move(stage=Stage.CREATE, after=max(1.0, min(_PRICE_SECONDS, left)), fields={"problem": str(lacks)})


def _forgotten(job: HeldJob, intent: Intent) -> JobMove:
    """Moves on to reconcile, for a create that only the spool knows of."""
    log.warning(
        "job %s: Redis has forgotten that it was to be created", job.record.id, extra=Event.CREATE_FORGOTTEN.extra
    )
    # Its input is that of the intent, which Redis may not know any more.
    input_of: JobChange = {"continuations": intent.continuations, "partial": intent.partial}
    return Move(stage=Stage.CREATE, fields={**_intended(job, intent, until=None), **input_of})


def _intended(job: HeldJob, intent: Intent, *, until: float | None) -> JobChange:
    """The fields that hold an intent in Redis. `until` is when its call is over at the latest; None: not known."""
    return {
        "intent": job.now(),
        "intent_until": until,
        "intent_by_wall": time.time(),
        "answered": None,
        "damaged_since": None,
        "state": JobState.CREATING,
        "creates": intent.number,
        "display_name": intent.display_name,
    }


def _prepared(runtime: Runtime, provider: Provider, job: HeldJob, reader: RequestReader) -> NewJob | None:
    """The job to create, its input uploaded; None while the provider is still reading the input."""
    batch = job.batch
    carried = runtime.ledger.carried(job)
    name = runtime.display_name(job.record)
    again = bool(job.record.doubtful_creates)
    new = NewJob(
        model=batch.model,
        display_name=name,
        kind=batch.kind,
        destination=batch.destination,
        webhook=_webhook(runtime, provider, job),
        again=again,
    )
    if in_place(batch, job.record):
        return replace(new, sources=provider.pin(name, batch.sources))
    if batch.mode is Mode.INLINE and not job.record.by_file:
        lines = _lines(runtime, job, reader, carried)
        return replace(new, lines=lines, size=sum(map(_most_bytes, lines)))
    known = job.record.input
    uploaded = Uploaded(known, ready=False) if known else _upload(runtime, provider, job, reader, carried)
    ready = uploaded.ready or provider.ready(uploaded.name)
    return replace(new, input=uploaded.name) if ready else None


def _upload(runtime: Runtime, provider: Provider, job: HeldJob, reader: RequestReader, carried: Ordinals) -> Uploaded:
    """Uploads the job's lines. Those of a retry job are gathered in the spool first."""
    keep = runtime.clock.keeper(job)
    display_name = runtime.display_name(job.record)
    with _opened_lines(runtime, provider, job, reader, carried) as (file, start, end):
        reach("create.before-upload")
        keep()
        uploaded = provider.upload(display_name, cast("IO[bytes]", SpoolSlice(file, start, end, keep)))
    reach("create.after-upload")
    runtime.clock.keep(job, {"input": uploaded.name, "display_name": display_name})
    reach("create.after-input-recorded")
    return uploaded


@contextmanager
def _opened_lines(
    runtime: Runtime, provider: Provider, job: HeldJob, reader: RequestReader, carried: Ordinals
) -> Iterator[tuple[IO[bytes], int, int]]:
    """Opens a job's lines: yields a seekable file, and where in it they start and end."""
    if carried.bitmap is None:
        with reader.open_lines(carried.first, carried.last) as lines:
            yield lines
        return
    name = f"{BatchFiles(job.batch_id).job(job.record.number)}/input.jsonl"
    keep = runtime.clock.keeper(job)
    keep()
    with runtime.spool.write_working(name) as file:
        sink = _sink(runtime, job, carried, file)
        if lines_elsewhere(job.batch):
            copy_lines(provider, job.batch, reader, carried.runs(), sink, keep)
        else:
            reader.copy_lines(carried.runs(), sink)
        size = file.tell()
    with runtime.spool.open(name) as file:
        yield file, 0, size


def _lines(runtime: Runtime, job: HeldJob, reader: RequestReader, carried: Ordinals) -> list[bytes]:
    """The lines of an inline job: under 20 MB, so they fit in memory."""
    lines = io.BytesIO()
    sink = _sink(runtime, job, carried, lines)
    reader.copy_lines(carried.runs(), sink)
    return lines.getvalue().splitlines()


def _sink(runtime: Runtime, job: HeldJob, carried: Ordinals, file: IO[bytes]) -> IO[bytes]:
    """The sink of a job's lines: it adds continuation tokens where the job continues answers."""
    if job.record.partial is None:
        return file
    begun = PartialAnswers.read(runtime.spool, job.batch_id, job.record.partial)
    return cast("IO[bytes]", ContinuedLines(file, carried, begun))


def _most_bytes(line: bytes) -> int:
    """The most bytes that a line takes on the wire: the SDK writes each character beyond ASCII as six-byte escapes."""
    return len(line) if line.isascii() else 3 * len(line)


def _refused(runtime: Runtime, job: HeldJob, refusal: Refused) -> JobMove:
    runtime.admission.withdraw(job)
    return Move(
        stage=Stage.SETTLE,
        fields={"state": JobState.FAILED, "refused": True, "error": bounded(refusal.error)},
    )
