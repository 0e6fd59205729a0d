"""The retry jobs of a job that closes: what each carries, and how its requests are counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from lowtide.protocol import JobRecord, Stage, measures, written_fields
from lowtide.protocol.changes import CarriedRequests, ContinuedAnswers, NewJob, new_job
from lowtide.states import JobState
from lowtide.store import pairs
from lowtide_worker.state.held import HeldJob
from lowtide_worker.state.ordinals import Ordinals


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that run again in a new job, and what is counted there as in every job."""

    requests: Ordinals
    attempt: int
    losses: int
    continuations: int = 0
    partial: str | None = None
    """The file that says where the answers are that the new job continues."""

    @classmethod
    def of(cls, job: JobRecord, requests: Ordinals) -> Retry:
        """Requests of a job that run again as if nothing had happened."""
        return cls(
            requests=requests,
            attempt=job.attempt,
            losses=job.losses,
            continuations=job.continuations,
            partial=job.partial,
        )

    def again(self) -> Retry:
        """The same requests with one attempt more."""
        return replace(self, attempt=self.attempt + 1)

    def after_loss(self) -> Retry:
        """The same requests after one more job that was lost as a whole, which costs no attempt."""
        return replace(self, losses=self.losses + 1)

    def continued(self, partial: str) -> Retry:
        """The same requests, whose answers go on; `partial` is the file that says where they are."""
        return replace(self, continuations=self.continuations + 1, partial=partial)

    def fields(self, batch_id: str) -> list[Any]:
        """The fields of the new job and their values, one after the other, as the scripts take them."""
        new: NewJob = {
            **new_job(batch_id, stage=Stage.CREATE),
            "attempt": self.attempt,
            "losses": self.losses,
        }
        answers: ContinuedAnswers = {"continuations": self.continuations, "partial": self.partial}
        return [
            *written_fields(new),
            *written_fields(carried_by(self.requests)),
            *(written_fields(answers) if self.continuations else ()),
        ]


def new_jobs(batch_id: str, retries: Iterable[Retry]) -> list[Any]:
    """The retry jobs as close.lua takes them: of each the number of its fields and values, its bitmap, and these."""
    jobs = ((retry.requests.bitmap or b"", retry.fields(batch_id)) for retry in retries)
    return [part for bitmap, fields in jobs for part in (len(fields), bitmap, *fields)]


def carried_by(ordinals: Ordinals) -> CarriedRequests:
    """The fields of a job that carries these requests."""
    sparse = ordinals.bitmap is not None
    return {"first": ordinals.first, "last": ordinals.last, "requests": len(ordinals), "sparse": sparse}


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
