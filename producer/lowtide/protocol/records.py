"""The state machine's records: every field of the hashes that hold batches, jobs and segments.

Each record is one Redis hash; `keys` says under which name. A field that is absent or empty has its default here. The
scripts write some fields, the stages write others (see `changes`); a test compares both with this list. Times are Unix
seconds by Redis's clock, sizes are bytes, and ordinals count a batch's requests from 0.
"""

from __future__ import annotations

import msgspec

from lowtide.budgets import Shortage
from lowtide.models import ResultError, Usage
from lowtide.protocol.failed_delivery import FailedDelivery
from lowtide.protocol.file_parts import Collected, Part, Range
from lowtide.states import Awaited, BatchState, JobState, Kind, Mode, OverBudget, ProviderName, Verdict


class EntityRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that every record has, by which the clock works."""

    v: int
    """Version of the schema that wrote the record; set when it is made."""
    stage: str | None = None
    """The stage that is due next; None where the entity is off the clock."""
    token: int = 0
    """Number of the last hand-out; older ones are stale. Each begin, each new message and some scripts count it up."""
    busy: bool = False
    """Whether a message is under way or a worker is at work; set by the clock."""
    sent: int | None = None
    """The token of the last message; it is sent again as it is while no worker has begun with it."""
    woken: float | None = None
    """Something that it waits for has come while it was busy: when the present work ends, it is due from this time on,
    in Unix seconds; 1 where that is at once, 0 where that is the turn of a job that waits for a slot."""
    failures: int = 0
    """Tries in a row in which the present stage has failed; set by the worker that ran it."""
    problem: str | None = None
    """The reason why the last try failed, for people; None after one that did not."""
    counted: str | None = None
    """The name under which it is counted in the census; None where an earlier version has made it."""


class SweepRecord(EntityRecord, frozen=True, kw_only=True):
    """State of the sweep, of which there is one: nothing but what the clock needs."""


class Paid(EntityRecord, frozen=True, kw_only=True):
    """Tokens and cost of all rows that came, whether they are results or not; record.lua counts them up.

    A row is counted when it first comes. It may come once more, as a duplicate or because its job's output is collected
    again, and was paid once.
    """

    paid_rows: int = 0
    """Rows that reported their tokens."""
    paid_prompt_token_count: int = 0
    """Tokens of the prompts; this and the next five are sums under the provider's names."""
    paid_cached_content_token_count: int = 0
    """Tokens of prompts that came from a cache."""
    paid_candidates_token_count: int = 0
    """Tokens of the answers."""
    paid_thoughts_token_count: int = 0
    """Tokens of thoughts."""
    paid_tool_use_prompt_token_count: int = 0
    """Tokens of the results of tools."""
    paid_total_token_count: int = 0
    """Tokens of all kinds."""
    paid_cost: int | None = None
    """Cost of the rows whose price is known, in nano-dollars; None where no row came, or an older version counted."""
    priced_rows: int = 0
    """Rows that reported their tokens and whose price is known."""
    unpriced: int = 0
    """Rows whose tokens or price are not known."""


ROWS, COST, PRICED, UNPRICED = "rows", "cost", "priced_rows", "unpriced"
PAID = {name: f"paid_{name}" for name in (ROWS, *Usage.__struct_fields__, COST)} | {
    PRICED: PRICED,
    UNPRICED: UNPRICED,
}
"""The fields of `Paid` by the names of `Usage`, and those of rows and cost."""


class BatchRecord(Paid, frozen=True, kw_only=True):
    """State, options and counters of a batch. The producer writes the options once, when it submits the batch."""

    id: str
    """The batch's id."""
    state: BatchState
    """State as users see it: `pending` by submit, then changed by scripts only, but for `deleting` by delete."""
    created: float
    """When it was recorded; set by register.lua."""
    fingerprint: str | None = None
    """Hash of its requests and options: a second submit under the same idempotency key must have the same."""

    model: str
    """The provider's model, as the user named it."""
    provider: ProviderName = ProviderName.GEMINI
    """The provider that runs its jobs."""
    mode: Mode = Mode.FILE
    """How its requests travel."""
    kind: Kind = Kind.GENERATION
    """The kind of answer that the provider is asked for."""
    destination: str | None = None
    """The user's own place for the provider's output; None where Lowtide chooses one."""
    key_column: str | None = None
    """The column of a BigQuery source that holds the keys."""
    sources: tuple[Part, ...] = ()
    """The user's own objects or table that the provider reads in place; empty where it is given copies."""
    max_attempts: int = 1
    """How many jobs may carry a request before it has failed."""
    max_cost: int | None = None
    """Most that may be paid for its rows, in nano-dollars; None: no limit."""
    over_budget: OverBudget = OverBudget.FAIL
    """How to end the requests for which that leaves too little."""
    output_tokens: int | None = None
    """Most output tokens of its requests together, an assumption where a request names none; None: not counted."""
    closed_cost: int = 0
    """Cost of its closed jobs, in nano-dollars, and"""
    closed_estimate: int = 0
    """the estimate of the same by the price table. Both are counted under a budget, and correct the next estimates."""
    priority: int = 0
    """The higher one goes first where jobs wait for a slot."""
    deadline: float | None = None
    """When it gets no more jobs, and its requests expire; None: at the age that the workers' setting gives."""
    on_result: str | None = None
    """The handler that gets the results; None where they are only stored."""
    on_finished: str | None = None
    """The handler that is notified of the batch's end; None for none."""
    on_progress: str | None = None
    """The handler that is notified of the batch's progress; None for none."""
    labels: dict[str, str] = {}
    """The user's own labels."""
    tenant: str | None = None
    """Digest of the label `tenant`, by which slots and tokens are shared; None for no tenant, or where an earlier
    version has recorded the batch."""
    outcomes: dict[str, Verdict] = {}
    """Verdicts by reason or code that overrule the worker's."""
    idempotency_key: str | None = None
    """The user's key under which a second submit finds this batch."""
    traceparent: str | None = None
    """The span in which it was submitted, as the header of W3C Trace Context; None without OpenTelemetry."""
    tracestate: str | None = None
    """The header of this name that belongs to it."""

    total: int = 0
    """Number of its requests."""
    bytes: int = 0
    """Size of its requests in the spool."""
    tokens: int = 0
    """Estimated input tokens of its requests."""
    groups: int = 1
    """Number of groups that its requests fall into; requests of two groups cannot share a job."""

    bundle: str | None = None
    """The bundle whose jobs carry its requests; None where it has jobs of its own. register.lua writes this and the
    next four."""
    bundled: int = 0
    """Number of batches in it, where it is a bundle; 0 for a batch that was submitted."""
    bundled_left: int = 0
    """Those of them that are not deleted yet; counted down by forget.lua."""
    bundled_running: int = 0
    """Those of them that still want results; counted down by the scripts that cancel or end one."""
    lane: str | None = None
    """The lane that it is open for, where it is a bundle; None once it is cut into jobs."""
    lingers_until: float | None = None
    """When it waits no longer for more batches, at the latest."""
    stored: tuple[Range, ...] = ()
    """The ranges of its results in the files of its bundle; record.lua adds one for each segment."""

    gathers: str | None = None
    """The gathering lane whose singles become its requests; None for a batch that was submitted. add.lua writes this
    and the next five."""
    shares: str | None = None
    """The lane in which it shares jobs once it is gathered; None where it has jobs of its own."""
    salt: str | None = None
    """Random characters in the tickets of its singles, so that no ticket can be guessed from another."""
    run: str | None = None
    """The run of the server that has opened it; another run, which may have lost writes, adds no single to it."""
    kept: float | None = None
    """Time after which it is deleted once it has finished, in seconds; None: as the workers' setting says."""
    traces: str | None = None
    """Spans of the first calls that added its singles, each as a `traceparent`, divided by blanks; None for none."""

    cancel: bool = False
    """Whether cancel was asked for; set by cancel.lua."""
    jobs: int = 0
    """Number of its jobs so far, retry jobs included; set by plan.lua and close.lua."""
    open: int = 0
    """Jobs that are not closed yet; the batch ends with the last one."""
    pools: dict[str, int] = {}
    """By pool, the number of the retry job that its requests join until that job is created; written by close.lua."""
    drafted: int | None = None
    """While submit cuts the batch into jobs: the number of the last one written; None before and after."""
    damaged_since: float | None = None
    """When submit first found its files missing or not whole; None where they were there."""

    succeeded: int = 0
    """Requests that have succeeded; this and the other counters are counted up by record.lua."""
    failed: int = 0
    """Requests that have failed."""
    expired: int = 0
    """Requests that have expired."""
    cancelled: int = 0
    """Requests that were cancelled."""
    duplicates: int = 0
    """Rows for requests that had a result already."""
    quarantined: int = 0
    """Rows that belong to no request."""
    prompt_token_count: int = 0
    """Tokens of the prompts of results; this and the next five are sums under the provider's names."""
    cached_content_token_count: int = 0
    """Tokens of prompts that came from a cache."""
    candidates_token_count: int = 0
    """Tokens of the answers."""
    thoughts_token_count: int = 0
    """Tokens of thoughts."""
    tool_use_prompt_token_count: int = 0
    """Tokens of the results of tools."""
    total_token_count: int = 0
    """Tokens of all kinds."""
    cost: int | None = None
    """Cost of the results whose price is known, in nano-dollars; None where there is none, or an older version
    counted."""
    reasons: dict[str, int] = {}
    """Results without success by reason; record.lua counts these and the next, and keeps a limited number of names."""
    models: dict[str, int] = {}
    """Results by the model that answered, as the provider named it."""

    undelivered: int = 0
    """Segments whose results are stored and not yet taken by the handler."""
    parked: int = 0
    """Segments that no try could deliver, and that are not offered any more."""
    delivery_problem: str | None = None
    """The reason why a delivery last failed, for people; None where nothing hinders deliveries."""
    delivery_failed: FailedDelivery | None = None
    """The attempt that this is about; None where it was no attempt of the handler."""
    event_problem: str | None = None
    """The reason why its batch event is not delivered, for people; None where nothing hinders that."""

    finished: float | None = None
    """When its last request got its result; None while it runs."""
    error: ResultError | None = None
    """The error of the last job that ended with one and whose requests did not run again."""


class JobRecord(Paid, frozen=True, kw_only=True):
    """State of a provider job. draft.lua and close.lua make it; the stages write most of the rest."""

    id: str
    """The job's id: the batch's and `number`."""
    batch_id: str
    """The batch it belongs to."""
    number: int
    """Its number in the batch, from 1."""
    state: JobState
    """State of the provider's job, or one of Lowtide's own before and after."""

    first: int
    """Ordinal of its first request; of the job of a pool up to seven less."""
    last: int
    """Ordinal behind its last request."""
    requests: int
    """Number of its requests."""
    sparse: bool = False
    """Whether it carries only some of these ordinals: those of the bitmap `lowtide:carried:<job>`."""
    bytes: int | None = None
    """Size of its requests, where it is the job of a pool; else None."""
    attempt: int
    """How often its requests have been tried with this job, from 1."""
    losses: int = 0
    """Jobs of these requests that were lost as a whole, which cost no attempt."""
    continuations: int = 0
    """How often the answers of its requests have been continued, which costs no attempt."""
    partial: str | None = None
    """The file that says where the answers are that it continues; None where it continues none."""
    by_file: bool = False
    """Whether its requests travel by file although the batch is inline: an inline job has lost some of their keys."""

    input: str | None = None
    """The provider's name for the uploaded requests; None before the upload, or where there is none."""
    display_name: str | None = None
    """The display name by which Lowtide finds the job in the provider's list; None before it has one."""
    tokens: int | None = None
    """Estimated input tokens of its requests; None before it asks for a slot. admit.lua writes these."""
    least: int | None = None
    """Those that it has at least, however it is divided."""
    output_tokens: int | None = None
    """Its most output tokens; counted only under a budget, as the next two are."""
    least_output: int | None = None
    """Those that it has at least, however it is divided."""
    estimate: int | None = None
    """Its estimated cost by the price table, in nano-dollars."""
    granted: int | None = None
    """Those that it may have, where it has a slot. If they are fewer, it is being divided."""
    granted_cost: int | None = None
    """The same of its cost by the price table, in nano-dollars; None where no budget limits it."""
    awaits: Awaited | None = None
    """The thing that it waits for; None where it does not."""
    budgets: tuple[str, ...] = ()
    """The budgets that it is under, by name. admit.lua writes this and the next two."""
    reserved: int | None = None
    """Its estimated cost, in nano-dollars, which these budgets hold for it until it is closed."""
    shortage: Shortage | None = None
    """The budget that it waits for; None where it waits for none."""
    throttled: int = 0
    """Times in a row that the quota was used up at create."""
    creates: int = 0
    """Number of the last intent to create it, from 1. The spool has it as well: see `lowtide_worker.intents`."""
    intent: float | None = None
    """When create was about to call the provider; None where no call can be under way."""
    intent_until: float | None = None
    """When that call is over at the latest; None where only its beginning is known."""
    intent_by_wall: float | None = None
    """`intent` by the clock of the worker's machine: Redis's may be set while the call is under way."""
    answered: float | None = None
    """When that call ended without an answer that says whether the job exists."""
    doubtful_creates: int = 0
    """Creates of unknown outcome after which no job was found, and that may make one all the same."""
    adopted: str | None = None
    """The provider job that was chosen among several of its display name."""

    name: str | None = None
    """The provider's name for the job; None until it is created."""
    created: float | None = None
    """When it was known to be created."""
    provider_state: str | None = None
    """State in the provider's own words at the last poll."""
    polls: int = 0
    """How often it has been polled."""
    webhook: bool | None = None
    """Whether it was created with a webhook, so that the provider reports its end; False after a refusal that may have
    been because of it."""
    hinted: float | None = None
    """When an event of the provider last made its poll due; written by hint.lua."""
    done_requests: int = 0
    """Requests that are done, as the provider said at the last poll."""
    seen: float | None = None
    """When the provider last showed the job."""
    missing_since: float | None = None
    """When the provider first did not know it any more; None while it does."""
    cancel_sent: float | None = None
    """When the provider was asked to cancel it."""
    ended: float | None = None
    """When it was first seen to have ended."""
    error: ResultError | None = None
    """The error that the job as a whole ended with."""

    output: str | None = None
    """The provider's name or place for the output; None until it has ended with one."""
    parts: tuple[Part, ...] = ()
    """The output's parts where it is read in place; empty where it is downloaded."""
    doubted: float | None = None
    """When its output was first not what the job says; None where it was."""
    doubts: int = 0
    """How often its output was not what the job says."""
    collected: Collected | None = None
    """The output that is divided into segments so far; None where no more segments will come."""
    segments: int = 0
    """Number of its segments so far."""
    segments_left: int = 0
    """Segments whose results are not stored yet; settle waits for the last."""
    recollected: int = 0
    """`segments` when its output was last collected again. Losing an earlier segment need not start that again."""
    dropped: str | None = None
    """Numbers of segments that were given up, separated by spaces."""
    partial_segments: str | None = None
    """Stored segments with answers that are to be continued, separated by spaces: of each its number, a colon, and the
    digest in the name of their file."""
    retried_by: dict[str, int] = {}
    """Rows whose requests run again, by reason; counted up by record.lua."""
    refused: bool = False
    """Whether the provider refused it: its requests have failed for good."""

    damaged_since: float | None = None
    """When create or settle first found files of its batch missing, or not whole; None where they were there."""

    surprises: int = 0
    """Failures in a row, in the stages that hold a slot, of a kind that no class of failure covers."""
    surprise: str | None = None
    """The last of them."""
