"""States of batches, jobs and results, with the subsets that code asks for by name."""

from __future__ import annotations

from enum import StrEnum


class BatchState(StrEnum):
    """State of a batch, as users see it."""

    PENDING = "pending"
    """Accepted and recorded; not yet cut into jobs."""
    RUNNING = "running"
    """Its jobs are being created, polled, collected or delivered."""
    CANCELLING = "cancelling"
    """Cancel was asked; what is already done is still collected."""
    COMPLETED = "completed"
    """Every request has its result and at least one succeeded."""
    FAILED = "failed"
    """Every request has its result and none succeeded."""
    EXPIRED = "expired"
    """Every request has its result; the provider let some expire and no attempt was left."""
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
    """State of a provider job: Google's `JobState` without its prefix, and a few of our own.

    Source: https://ai.google.dev/gemini-api/docs/batch-api
    """

    PLANNED = "planned"
    """Cut from its batch, not yet sent."""
    CREATING = "creating"
    """About to be created, or created with an outcome not yet known."""
    QUEUED = "queued"
    PENDING = "pending"
    RUNNING = "running"
    UPDATING = "updating"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    UNKNOWN = "unknown"
    """The provider reports a state that this version does not know; it is polled on."""
    SUCCEEDED = "succeeded"
    PARTIALLY_SUCCEEDED = "partially_succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    LOST = "lost"
    """The provider does not know the job any more."""

    @property
    def terminal(self) -> bool:
        """Whether the provider will not change the job any more."""
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


class ResultStatus(StrEnum):
    """The final outcome of one request."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Verdict(StrEnum):
    """What a row that did not plainly succeed comes to: see `lowtide_worker.output.judging` for the table."""

    RETRY = "retry"
    """The request runs again while it has attempts left."""
    FAIL = "fail"
    """The request has failed, now."""
    SUCCEED = "succeed"
    """What came is good enough: a result like any other."""


class Kind(StrEnum):
    """What the provider is asked to do with the requests of a batch."""

    GENERATION = "generation"
    """generateContent: text, images, speech."""
    EMBEDDING = "embedding"
    """embedContent: one vector for each request."""


class Mode(StrEnum):
    """How a job's requests travel to the provider."""

    FILE = "file"
    """As an uploaded JSONL file: any size up to 2 GB."""
    INLINE = "inline"
    """Inside the create call: small batches, under 20 MB."""


class ProviderName(StrEnum):
    """Who runs the jobs."""

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
