"""Pools: requests of several jobs of a batch that run again and share a job.

A batch has a pool for each number of attempts, losses and continuations, as one number of each holds for all requests
of a job. Requests of inline jobs that travel by file from then on have pools of their own. The script that closes a job
adds its requests to the job of their pool until that job is created.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import islice

from lowtide.protocol import job_id
from lowtide.spool import DamagedBlob, RequestReader
from lowtide.states import JobState, ProviderName
from lowtide_worker.partial_answers import PartialAnswers
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import HeldJob, Ordinals, Retry


def pooled(runtime: Runtime, job: HeldJob, retry: Retry) -> Retry:
    """Returns the requests that run again, in their pool if they may share a job."""
    # A row that goes on and fails is asked again with the file of its own job.
    return retry if retry.partial else _pooled(runtime, job, retry, {})


def pooled_answers(runtime: Runtime, job: HeldJob, retry: Retry, partial: PartialAnswers) -> Retry:
    """Returns the requests whose answers go on, in their pool if they may share a job.

    - `partial`: the answers that have begun.
    """
    found = _pooled(runtime, job, retry, dict(partial.token_bytes()))
    number = job.batch.pools.get(found.pool)
    other = None if number is None else runtime.ledger.job(job_id(job.batch_id, number))
    if other is None or not other.partial or other.creates:
        return found
    with suppress(DamagedBlob):
        both = PartialAnswers.read(runtime.spool, job.batch_id, other.partial).and_those_of(partial)
        runtime.clock.check(job)
        return found.joining(other.partial, both.write(job.record.number))
    return retry


def _pooled(runtime: Runtime, job: HeldJob, retry: Retry, more_bytes: Mapping[int, int]) -> Retry:
    """The requests in their pool, whose lines get so many bytes more by ordinal."""
    if not _may_share(job) or len(retry.requests) > runtime.settings.linger_requests:
        return retry
    reader = RequestReader(runtime.spool, job.batch_id)
    # What is missing from the spool is the concern of the stage that needs it.
    with suppress(DamagedBlob):
        group = _group(reader, job, retry.requests)
        if group is not None:
            size = _size(reader, retry.requests, more_bytes)
            by_file = "|file" if retry.by_file else ""
            return retry.pooled(f"{retry.attempt}|{retry.losses}|{retry.continuations}|{group}{by_file}", size)
    return retry


def _may_share(job: HeldJob) -> bool:
    """Whether there may be requests of other jobs for the same job.

    A job that has failed as a whole may have failed because of one of its requests. Which requests of a bundle may
    share a file on Vertex AI is known only while it is cut.
    """
    if job.batch.jobs == 1 or job.record.state is JobState.FAILED:
        return False
    return not (job.batch.bundled and job.batch.provider is ProviderName.VERTEX)


def _size(reader: RequestReader, requests: Ordinals, more_bytes: Mapping[int, int]) -> int:
    """The size of the lines, in bytes."""
    wanted = set(requests)
    sizes = enumerate(reader.sizes(requests.first, requests.last), requests.first)
    return sum(size + more_bytes.get(ordinal, 0) for ordinal, (size, _) in sizes if ordinal in wanted)


def _group(reader: RequestReader, job: HeldJob, requests: Ordinals) -> int | None:
    """The group of the requests: all have the same, as they were in one job. None where it is not known."""
    if job.batch.groups == 1:
        return 0
    groups, first = reader.groups() or (), next(iter(requests))
    return next((group for group, _, _ in islice(groups, first, None)), None)
