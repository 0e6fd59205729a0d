"""The retry jobs of a job that closes: what each carries, and how its requests are counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from lowtide.models import ResultError
from lowtide.protocol import BatchRecord, JobRecord, Stage, measures, written_fields
from lowtide.protocol.changes import (
    CarriedRequests,
    ContinuedAnswers,
    JobChange,
    KeysLost,
    NewJob,
    PooledRequests,
    new_job,
)
from lowtide.states import JobState, ResultStatus
from lowtide.store import pairs
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state.held import HeldJob
from lowtide_worker.state.ordinals import Ordinals


class OutdatedError(Exception):
    """The job of a pool continues other answers than when the requests that are to join it were prepared."""


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that run again in a new job, and what is counted there as in every job."""

    requests: Ordinals
    attempt: int
    losses: int
    continuations: int = 0
    partial: str | None = None
    """The file that says where the answers are that the new job continues."""
    by_file: bool = False
    """Whether they travel by file although their batch is inline."""
    pool: str = ""
    """The pool of the batch whose job these requests may join; "" where they get a job of their own."""
    bytes: int | None = None
    """Size of the requests in a pool."""
    joins: tuple[str, str] = ("", "")
    """The file of the answers that the job of the pool continues, and the file that has these and those of the new
    requests; both "" where no answers go on. The requests join only a job that continues the former."""
    number: int = 0
    """The number of the new job, if Redis has forgotten that it was made before; else 0."""

    @classmethod
    def of(cls, job: JobRecord, requests: Ordinals) -> Retry:
        """Requests of a job that run again as if nothing had happened."""
        return cls(
            requests=requests,
            attempt=job.attempt,
            losses=job.losses,
            continuations=job.continuations,
            partial=job.partial,
            by_file=job.by_file,
        )

    def again(self) -> Retry:
        """The same requests with one attempt more."""
        return replace(self, attempt=self.attempt + 1)

    def after_loss(self) -> Retry:
        """The same requests after one more job that was lost as a whole, which costs no attempt."""
        return replace(self, losses=self.losses + 1)

    def sent_by_file(self) -> Retry:
        """The same requests, which travel by file from now on."""
        return replace(self, by_file=True)

    def continued(self, partial: str) -> Retry:
        """The same requests, whose answers go on; `partial` is the file that says where they are."""
        return replace(self, continuations=self.continuations + 1, partial=partial)

    def pooled(self, pool: str, size: int) -> Retry:
        """The same requests, which may share a job with others of a pool; `size` is theirs, in bytes."""
        return replace(self, pool=pool, bytes=size, requests=self.requests.aligned())

    def joining(self, before: str, together: str) -> Retry:
        """The same requests, which join only a job that continues the answers of the file `before`.

        With them that job continues those of the file `together`.
        """
        return replace(self, joins=(before, together))

    def fields(self, batch_id: str) -> list[Any]:
        """The fields of the new job and their values, one after the other, as the scripts take them."""
        new: NewJob = {
            **new_job(batch_id, stage=Stage.CREATE),
            "attempt": self.attempt,
            "losses": self.losses,
        }
        answers: ContinuedAnswers = {"continuations": self.continuations, "partial": self.partial}
        way: KeysLost = {"by_file": self.by_file}
        return [
            *written_fields(new),
            *written_fields(carried_by(self.requests)),
            *(written_fields(PooledRequests(bytes=self.bytes)) if self.bytes is not None else ()),
            *(written_fields(answers) if self.continuations else ()),
            *(written_fields(way) if self.by_file else ()),
        ]


class Unstored(NamedTuple):
    """Requests of a job that end without stored results, because the files of their batch are lost."""

    status: ResultStatus
    """The status that they are counted under."""
    requests: int
    """Their number."""
    error: ResultError

    def totals(self) -> list[Any]:
        """Counters of all batches and their amounts, one after the other."""
        reason = measures.short_reason(self.error.reason)
        return [measures.counter(measures.RESULTS, self.status, reason), self.requests]


def new_jobs(batch_id: str, retries: Iterable[Retry]) -> list[Any]:
    """The retry jobs as close.lua takes them: of each the number of its fields and values, its pool, its bitmap,
    the files of partial answers, and these."""
    jobs = ((retry, retry.fields(batch_id)) for retry in retries)
    return [
        part
        for retry, fields in jobs
        for part in (len(fields), retry.pool, retry.requests.bitmap or b"", *retry.joins, *fields)
    ]


def pool_limits(settings: WorkerSettings, batch: BatchRecord) -> dict[str, Any]:
    """The arguments of close.lua about the job of a pool."""
    return {
        "linger": settings.linger_seconds,
        "enough": settings.linger_requests,
        "most": settings.max_requests_per_job,
        "most_bytes": settings.max_job_bytes(batch.mode, batch.provider),
    }


def carried_by(ordinals: Ordinals) -> CarriedRequests:
    """The fields of a job that carries these requests."""
    sparse = ordinals.bitmap is not None
    return {"first": ordinals.first, "last": ordinals.last, "requests": len(ordinals), "sparse": sparse}


def kept_by(ordinals: Ordinals) -> list[Any]:
    """The fields and values of a job that keeps only these of its requests.

    They are counted again. Without `bytes` no others join them.
    """
    uncounted: JobChange = {
        "tokens": None,
        "least": None,
        "output_tokens": None,
        "least_output": None,
        "bytes": None,
    }
    return [*written_fields(carried_by(ordinals)), *written_fields(uncounted)]


def retry_counts(job: HeldJob, retries: Sequence[Retry]) -> list[Any]:
    """Counters of all batches and their amounts, one after the other: the requests that run again, by reason."""
    continued = sum(len(retry.requests) for retry in retries if retry.continuations > job.record.continuations)
    others = sum(len(retry.requests) for retry in retries) - continued
    return pairs((measures.counter(measures.RETRIES, reason), n) for reason, n in _reasons(job, continued, others))


def _reasons(job: HeldJob, continued: int, others: int) -> Iterator[tuple[str, int]]:
    """Why so many requests of a job run again, each counted once: by the reasons of their rows, else by the job's."""
    rows = dict(job.record.retried_by)
    rows[measures.CONTINUATION] = max(0, rows.get(measures.CONTINUATION, 0) - continued)
    left = others
    # A request with two rows that both say so is one request.
    for reason, count in rows.items():
        some = min(count, left)
        left -= some
        if reason == measures.CONTINUATION:
            some += continued
        if some:
            yield reason, some
    if left:
        yield _reason(job), left


def _reason(job: HeldJob) -> str:
    """The reason why requests of a job got no row."""
    if job.record.error is not None:
        return measures.short_reason(job.record.error.reason)
    ended_well = job.record.state in (JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED)
    return measures.MISSING if ended_well else job.record.state.upper()
