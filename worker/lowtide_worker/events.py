"""The events of the workers' log: their stable names, and the stage that a line belongs to.

The texts of log lines may change with any version. Their events do not, so alarms and searches can rely on them.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import StrEnum

from lowtide.protocol import Member, MemberKind, Stage
from lowtide.states import ProviderName


class Event(StrEnum):
    """The event of a log line. The reference says what each means."""

    BATCH_DELETED = "batch.deleted"
    BATCH_FINISHED = "batch.finished"
    BATCH_KEPT = "batch.kept"
    BATCH_LOST = "batch.lost"
    BATCH_OTHER_MODEL = "batch.other_model"
    BROKER_MESSAGE_FAILED = "broker.message_failed"
    BROKER_READ_FAILED = "broker.read_failed"
    BROKER_UNACKNOWLEDGED = "broker.unacknowledged"
    CLOCK_NO_SWEEP = "clock.no_sweep"
    CLOCK_ODD_MEMBER = "clock.odd_member"
    CLOCK_TICK_FAILED = "clock.tick_failed"
    CREATE_DENIED = "create.denied"
    CREATE_FORGOTTEN = "create.forgotten"
    CREATE_OVERDUE = "create.overdue"
    CREATE_THROTTLED = "create.throttled"
    CREATE_UNKNOWN = "create.unknown"
    CREATE_WITHOUT_PRICE = "create.without_price"
    CREATE_WITHOUT_WEBHOOK = "create.without_webhook"
    DEAD_LETTER_STORED = "dead_letter.stored"
    DELIVERY_FAILED = "delivery.failed"
    DELIVERY_NO_LISTENER = "delivery.no_listener"
    DELIVERY_PARKED = "delivery.parked"
    EVENT_DROPPED = "event.dropped"
    EVENT_FAILED = "event.failed"
    EVENT_NO_LISTENER = "event.no_listener"
    EVENT_PARKED = "event.parked"
    FLOWER_PAGES_UNAVAILABLE = "flower.pages_unavailable"
    HOOKS_SILENT = "hooks.silent"
    INBOX_IMPORTED = "inbox.imported"
    INBOX_LATER = "inbox.later"
    INBOX_NEWER = "inbox.newer"
    INBOX_REFUSED = "inbox.refused"
    INBOX_SLOW = "inbox.slow"
    ITEM_PASSED_OVER = "item.passed_over"
    JOB_ADOPTED = "job.adopted"
    JOB_CANCEL_IGNORED = "job.cancel_ignored"
    JOB_CREATED = "job.created"
    JOB_DIVIDED = "job.divided"
    JOB_ENDED = "job.ended"
    JOB_GIVEN_UP = "job.given_up"
    JOB_LOST = "job.lost"
    JOB_NOT_CREATED = "job.not_created"
    JOB_UNKNOWN_STATE = "job.unknown_state"
    KEY_WRONG_TYPE = "key.wrong_type"
    METRICS_LOST = "metrics.lost"
    METRICS_UNAVAILABLE = "metrics.unavailable"
    OUTPUT_ACCEPTED = "output.accepted"
    OUTPUT_GIVEN_UP = "output.given_up"
    OUTPUT_GONE = "output.gone"
    OUTPUT_INCOMPLETE = "output.incomplete"
    PROVIDER_LIST_FAILED = "provider.list_failed"
    PROVIDER_NOT_SERVED = "provider.not_served"
    PROVIDER_WRONG_ACCOUNT = "provider.wrong_account"
    RECORD_DAMAGED = "record.damaged"
    RECORD_OLDER = "record.older"
    REQUESTS_AGAIN = "requests.again"
    RESULTS_REMOVED = "results.removed"
    ROWS_QUARANTINED = "rows.quarantined"
    SEGMENT_COLLECTED_AGAIN = "segment.collected_again"
    SETTING_UNKNOWN = "setting.unknown"
    SPOOL_AWAY = "spool.away"
    SPOOL_BACK = "spool.back"
    STAGE_DONE = "stage.done"
    STAGE_FAILED = "stage.failed"
    STAGE_INTERRUPTED = "stage.interrupted"
    STAGE_RECEIVED = "stage.received"
    STAGE_SUPERSEDED = "stage.superseded"
    STAGE_TOO_LONG = "stage.too_long"
    SWEEP_INCOMPLETE = "sweep.incomplete"
    SWEEP_KEPT_FILES = "sweep.kept_files"
    SWEEP_REPAIRED = "sweep.repaired"
    SWEEP_STOPPED = "sweep.stopped"
    TWIN_REMOVED = "twin.removed"
    WORKER_ENDS = "worker.ends"
    WORKER_NOT_ANNOUNCED = "worker.not_announced"
    OTHER = "other"

    @property
    def extra(self) -> dict[str, str]:
        """The argument `extra` of a log call."""
        return {"event": self.value}


Fields = dict[str, str | int]
"""The fields of a log line that name its stage."""

_fields: ContextVar[Fields | None] = ContextVar("stage", default=None)


def enter_stage(stage: Stage, member: Member, provider: ProviderName | None = None) -> None:
    """Gives all log lines of this thread the ids of a stage's work, until `leave_stage`.

    - `provider`: that of the batch; None where it is not known. Lowtide has one account at each provider.
    """
    about: Fields = {"stage": stage.value, **ids(member)}
    _fields.set(about if provider is None else {**about, "provider": provider.value})


def leave_stage() -> None:
    """Ends what `enter_stage` began."""
    _fields.set(None)


def stage_fields() -> Fields:
    """The fields of the stage that this thread works on; empty outside of one."""
    return _fields.get() or {}


def ids(member: Member) -> Fields:
    """The ids of the batch, job and segment that a member names or belongs to."""
    found: Fields = {}
    if member.batch:
        found["batch_id"] = member.batch
    if member.job:
        found["job_id"] = member.job
    if member.kind is MemberKind.SEGMENT:
        found["segment"] = member.number
    return found
