"""The changes that producers and stages make to records: typed, so that a misspelt field is a type error.

`hashes.written_fields` turns a change into names and values. None removes what a field held. Scripts write what these
types leave out. See `records` for what each field means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from lowtide.models import ResultError
from lowtide.protocol.file_parts import Collected, Part
from lowtide.protocol.messages import RECORD_VERSION, Stage
from lowtide.states import BatchState, JobState, Kind, Mode, OverBudget, ProviderName


class NewBundle(TypedDict):
    """The fields of a new bundle; register.lua adds its id, the time, its lane and its totals.

    All batches of a lane have the same model, provider, mode, kind, attempts, priority, deadline, handler, outcomes and
    tenant, and the same labels that have a budget.
    """

    v: int
    state: BatchState
    stage: Stage | None
    token: int
    busy: bool
    model: str
    provider: ProviderName
    mode: Mode
    kind: Kind
    groups: int
    max_attempts: int
    priority: int
    deadline: float | None
    on_result: str | None
    labels: Mapping[str, str]
    tenant: str | None
    outcomes: Mapping[str, str]
    cancel: bool
    jobs: int
    open: int


class NewBatch(NewBundle):
    """The fields of a batch at submit; register.lua adds the time and the fingerprint."""

    id: str
    destination: str | None
    key_column: str | None
    sources: Sequence[Part] | None
    total: int
    bytes: int
    tokens: int
    max_cost: int | None
    over_budget: OverBudget
    output_tokens: int | None
    on_finished: str | None
    on_progress: str | None
    idempotency_key: str | None
    traceparent: str | None
    tracestate: str | None


class NewGathering(NewBundle):
    """The fields of a new batch that gathers singles; add.lua adds its id, the time, its salt and its totals."""

    gathers: str
    shares: str | None
    kept: float


class NewJob(TypedDict):
    """The fields of a new job; draft.lua and close.lua add its id, its number and its requests."""

    v: int
    batch_id: str
    stage: Stage | None
    token: int
    busy: bool
    state: JobState
    attempt: int
    losses: int


class CarriedRequests(TypedDict):
    """The fields that say which requests a retry job carries."""

    first: int
    last: int
    requests: int
    sparse: bool


class PooledRequests(TypedDict):
    """The field of the job of a pool, to which close.lua adds requests."""

    bytes: int


class ContinuedAnswers(TypedDict):
    """The fields of a job that continues answers of earlier jobs."""

    continuations: int
    partial: str | None


class KeysLost(TypedDict):
    """The field of a job whose requests were in an inline job that gave no rows under their keys."""

    by_file: bool


class NewSweep(TypedDict):
    """The fields of the sweep when it is put on the clock for the first time."""

    v: int
    stage: Stage
    token: int
    busy: bool


class Redelivery(TypedDict):
    """The fields of a segment that its handler gave back. The segment may be unknown to a Redis that was restored."""

    v: int
    batch_id: str
    job_id: str
    number: int
    stage: Stage
    busy: bool
    stored: bool
    tries: int
    problem: str
    only: Sequence[int] | None


class EntityChange(TypedDict, total=False):
    """Fields that any stage may change."""

    failures: int
    problem: str | None


class BatchChange(EntityChange, total=False):
    """Fields that the stages of a batch change."""

    state: BatchState
    damaged_since: float


class JobChange(EntityChange, total=False):
    """Fields that the stages of a job change."""

    state: JobState
    continuations: int
    partial: str | None
    input: str | None
    display_name: str
    bytes: None
    tokens: None
    least: None
    output_tokens: None
    least_output: None
    throttled: int
    creates: int
    intent: float | None
    intent_until: float | None
    intent_by_wall: float
    answered: float | None
    doubtful_creates: int
    adopted: str
    name: str
    created: float
    provider_state: str | None
    polls: int
    webhook: bool
    done_requests: int
    seen: float
    missing_since: float | None
    cancel_sent: float
    ended: float
    error: ResultError | None
    output: str
    parts: Sequence[Part]
    doubted: float
    doubts: int
    collected: Collected | None
    refused: bool
    damaged_since: float | None
    surprises: int
    surprise: str


class SegmentChange(EntityChange, total=False):
    """Fields that deliver changes."""

    partial: str
    tries: int
    most_tries: int
    silences: int
    sent_to: str | None
    looks: int


class EventChange(EntityChange, total=False):
    """Fields that notify changes."""

    tries: int
    silences: int
    sent_to: str | None
    looks: int
    sent_events: int
    reported: int


def new_job(batch_id: str, *, stage: Stage | None) -> NewJob:
    """Fields of a first job of requests, beside its id, its number and its requests."""
    return {
        "v": RECORD_VERSION,
        "batch_id": batch_id,
        "stage": stage,
        "token": 0,
        "busy": False,
        "state": JobState.PLANNED,
        "attempt": 1,
        "losses": 0,
    }
