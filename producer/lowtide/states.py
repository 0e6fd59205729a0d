"""States of batches, jobs and results, with named sets of states, and the choices that a batch has."""

from __future__ import annotations

from enum import StrEnum


class BatchState(StrEnum):
    """State of a batch, as users see it."""

    PENDING = "pending"
    """Accepted and recorded; not yet cut into jobs."""
    RUNNING = "running"
    """Its jobs are being created, polled, collected or delivered."""
    CANCELLING = "cancelling"
    """It was asked to stop; results that exist are still collected."""
    COMPLETED = "completed"
    """Every request has its result and at least one succeeded."""
    FAILED = "failed"
    """Every request has its result and none succeeded."""
    EXPIRED = "expired"
    """Every request has its result; some expired at the provider and had no attempt left."""
    CANCELLED = "cancelled"
    """Every request has its result; some were cancelled before they ran."""
    DELETING = "deleting"
    """Being removed, here and at the provider."""

    @property
    def finished(self) -> bool:
        """Whether every request has its final result."""
        return self in FINISHED_BATCH


FINISHED_BATCH = frozenset({BatchState.COMPLETED, BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLED})


class JobState(StrEnum):
    """State of a provider job: Google's `JobState` without its prefix, and a few of Lowtide's.

    Source: https://ai.google.dev/gemini-api/docs/batch-api
    """

    PLANNED = "planned"
    """Cut from its batch, not yet sent."""
    CREATING = "creating"
    """Its create call is about to start, or its outcome is not known yet."""
    QUEUED = "queued"
    PENDING = "pending"
    RUNNING = "running"
    UPDATING = "updating"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    UNKNOWN = "unknown"
    """The provider reports a state that this version does not know. Polling continues."""
    SUCCEEDED = "succeeded"
    PARTIALLY_SUCCEEDED = "partially_succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    LOST = "lost"
    """The provider no longer knows the job."""

    @property
    def terminal(self) -> bool:
        """Whether the job has ended at the provider."""
        return self in TERMINAL_JOB


TERMINAL_JOB = frozenset(
    {
        JobState.SUCCEEDED,
        JobState.PARTIALLY_SUCCEEDED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.EXPIRED,
        JobState.LOST,
    }
)


class Awaited(StrEnum):
    """The thing that a batch, or a job, waits for before its requests can be sent."""

    SLOT = "slot"
    """One of `LOWTIDE_MAX_ACTIVE_JOBS` live jobs must end."""
    TOKENS = "tokens"
    """The tokens of the live jobs of its model leave it too few."""
    QUOTA = "quota"
    """The provider has refused it because a quota is used up; it will be tried again."""
    BUDGET = "budget"
    """A budget, or the `max_cost` of the batch, leaves too little: it is paid, or held for the jobs under way."""
    OTHERS = "others"
    """Other small batches may join it, to share its jobs. Of a batch only: no job waits for this."""


class OverBudget(StrEnum):
    """How to end the requests for which the `max_cost` of their batch leaves too little."""

    FAIL = "fail"
    """They fail with the reason `BUDGET`."""
    WAIT = "wait"
    """They wait for a higher `max_cost`, until the deadline of the batch."""


class ResultStatus(StrEnum):
    """The final outcome of one request."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class TicketState(StrEnum):
    """State of a single, as its ticket shows it."""

    WAITING = "waiting"
    """Recorded; it waits to be sent with others."""
    SENT = "sent"
    """In a batch whose jobs are being created, polled, collected or delivered."""
    DONE = "done"
    """It has its result."""


class Verdict(StrEnum):
    """How to treat a row that did not plainly succeed: see `lowtide_worker.output.judging` for the table."""

    RETRY = "retry"
    """The request runs again as long as it has attempts left."""
    FAIL = "fail"
    """The request fails at once."""
    SUCCEED = "succeed"
    """The response is accepted: the request succeeds."""


class Kind(StrEnum):
    """The kind of call that the requests of a batch are."""

    GENERATION = "generation"
    """generateContent: text, images, speech."""
    EMBEDDING = "embedding"
    """embedContent: one vector for each request."""


class Mode(StrEnum):
    """How a job's requests travel to the provider."""

    FILE = "file"
    """As an uploaded JSONL file: up to 2 GB a job."""
    INLINE = "inline"
    """Inside the create call: small batches, under 20 MB a job."""


class ProviderName(StrEnum):
    """The provider that runs the jobs."""

    GEMINI = "gemini"
    """The Gemini Developer API: an API key, uploaded files or inline requests."""
    VERTEX = "vertex"
    """Vertex AI batch prediction: a Google Cloud project, Cloud Storage or BigQuery."""


class UnknownFields(StrEnum):
    """How to treat fields and values of a request that the SDK's types do not know: `LOWTIDE_UNKNOWN_FIELDS`.

    A misspelling of a known one is refused unless all pass.
    """

    REFUSE = "refuse"
    WARN = "warn"
    PASS = "pass"  # noqa: S105 - no password
