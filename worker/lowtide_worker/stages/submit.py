"""submit: cuts a batch into jobs within the provider's limits."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Iterable, Iterator

from lowtide.models import REQUESTS_LOST, ResultError
from lowtide.protocol import BatchFiles, Queue, Stage, batch_member
from lowtide.spool import KeyIndex, RequestReader
from lowtide.states import BatchState
from lowtide_worker.bundling import RequestsDamagedError, write_bundle
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.in_place import lines_elsewhere
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.lost_requests import end_without_requests, not_whole
from lowtide_worker.state import BatchMove, Done, HeldBatch, Move, Ordinals

log = logging.getLogger(__name__)

_SHORTEST_LINGER_SECONDS = 0.5
_AT_ONCE = 500
"""Most jobs in one script: Redis takes at most a million arguments, and serves nothing else meanwhile."""


def submit(runtime: Runtime, batch: HeldBatch) -> BatchMove | Done:
    """Plans the jobs of a batch and puts them on the clock, or ends a batch whose requests are gone."""
    if batch.record.bundled:
        return _bundle(runtime, batch)
    reader = runtime.requests.of(batch.record)
    if damaged := _damaged(runtime, batch, reader):
        consequence = "nothing was sent; submit the requests again"
        return end_without_requests(runtime, batch, not_whole(damaged), consequence)
    return _plan(runtime, batch, _jobs(runtime, batch, reader))


def _plan(runtime: Runtime, batch: HeldBatch, jobs: Iterator[Ordinals]) -> Done:
    count = 0
    while some := list(itertools.islice(jobs, _AT_ONCE)):
        reach("submit.before-draft")
        runtime.ledger.draft(batch, count + 1, some)
        count += len(some)
    reach("submit.before-plan")
    runtime.ledger.plan(batch, count)
    reach("submit.after-plan")
    return Done({"jobs": count}, wakes=(Queue.JOBS,))


def _jobs(runtime: Runtime, batch: HeldBatch, reader: RequestReader) -> Iterator[Ordinals]:
    if batch.record.sources:
        # Submit has checked that it fits one job. If it were cut, each job would be given the whole source.
        return iter([Ordinals(first=0, last=batch.record.total)])
    settings = runtime.settings
    max_requests = settings.max_requests_per_job
    max_bytes = settings.max_job_bytes(batch.record.mode, batch.record.provider)
    max_tokens = settings.max_tokens(batch.record.provider, batch.record.model)
    if batch.record.groups > 1 and (groups := reader.groups()) is not None:
        requests = ((ordinal, *group) for ordinal, group in enumerate(groups))
        return _cut(requests, max_requests=max_requests, max_bytes=max_bytes, max_tokens=max_tokens)
    cuts = reader.cuts(batch.record.total, max_requests=max_requests, max_bytes=max_bytes, max_tokens=max_tokens)
    return (Ordinals(first=first, last=last) for first, last in cuts)


def _bundle(runtime: Runtime, bundle: HeldBatch) -> BatchMove | Done:
    """Plans the jobs of a bundle, or leaves it open while jobs wait for a slot at the provider."""
    total = runtime.bundles.seal(bundle)
    if not total:
        return Move(stage=Stage.SUBMIT, after=max(runtime.settings.linger_seconds, _SHORTEST_LINGER_SECONDS))
    reach("submit.after-seal")
    batches = runtime.bundles.shares(bundle.batch_id, total)
    ids = [batch.batch_id for batch in batches]
    lost = runtime.bundles.failed(batches)
    waits: RequestsDamagedError | None = None
    while True:
        try:
            groups = write_bundle(
                runtime.spool,
                bundle.batch_id,
                zip(batches, runtime.requests.waiting(bundle.batch_id, ids), strict=True),
                provider=bundle.record.provider,
                lost=lost,
                wide=bool(bundle.record.labels),
                keep=runtime.clock.keeper(bundle),
            )
            break
        except RequestsDamagedError as damaged:
            lost.add(damaged.batch_id)
            if not _lose(runtime, bundle, damaged):
                waits = damaged
    if waits is not None:
        raise waits
    reach("submit.after-bundle")
    runtime.bundles.spare(bundle)
    wanted = runtime.ledger.unsettled(bundle.batch_id, Ordinals(first=0, last=total))
    if wanted is None:
        # The bundle is cancelled: its one job is never created.
        return _plan(runtime, bundle, iter([Ordinals(first=0, last=total)]))
    settings = runtime.settings
    sizes = list(runtime.requests.of(bundle.record).sizes())
    jobs = _cut(
        ((ordinal, groups[ordinal], *sizes[ordinal]) for ordinal in wanted),
        max_requests=settings.max_requests_per_job,
        max_bytes=settings.max_job_bytes(bundle.record.mode, bundle.record.provider),
        max_tokens=settings.max_tokens(bundle.record.provider, bundle.record.model),
    )
    return _plan(runtime, bundle, jobs)


def _lose(runtime: Runtime, bundle: HeldBatch, damaged: RequestsDamagedError) -> bool:
    """Ends a batch of a bundle whose requests are gone; returns False while the spool may only be away for a moment."""
    record = runtime.bundles.record(damaged.batch_id)
    if record is None or record.state not in (BatchState.PENDING, BatchState.RUNNING):
        return True
    # First, as a spool that is not mounted has lost no requests: the grace begins when it serves again.
    runtime.installation.check()
    now, grace = bundle.now(), runtime.settings.output_grace_seconds
    if now - runtime.bundles.damaged_since(damaged.batch_id, now) < grace:
        return False
    message = f"its requests are missing from the spool, or not whole, so nothing was sent: {damaged}"
    member = batch_member(damaged.batch_id)
    held = HeldBatch(member=member, stage=bundle.stage, token=record.token, record=record, begun=bundle.begun)
    runtime.ledger.lose(held, ResultError(reason=REQUESTS_LOST, message=message))
    log.error("batch %s has ended without results: %s", damaged.batch_id, message, extra=Event.BATCH_LOST.extra)
    return True


def _damaged(runtime: Runtime, batch: HeldBatch, reader: RequestReader) -> str | None:
    """The name of a file of the batch that is missing or not whole; None where all are whole."""
    record = batch.record
    damaged = reader.damaged(record.total, lines=not lines_elsewhere(record), groups=record.groups > 1)
    if damaged is None and record.sources and not KeyIndex.is_whole(runtime.spool, batch.batch_id, record.total):
        return BatchFiles(batch.batch_id).key_index
    return damaged


class _Open:
    """A job that is being filled with requests of its group."""

    def __init__(self, first: int) -> None:
        self.first = self.last = first
        self.requests = self.bytes = self.tokens = 0
        self._bits = bytearray()

    def add(self, ordinal: int, size: int, tokens: int) -> None:
        at = ordinal - self.first
        self._bits.extend(bytes(at // 8 + 1 - len(self._bits)))
        self._bits[at // 8] |= 0x80 >> at % 8
        self.last = ordinal + 1
        self.requests += 1
        self.bytes += size
        self.tokens += tokens

    def ordinals(self) -> Ordinals:
        whole = self.requests == self.last - self.first
        return Ordinals(first=self.first, last=self.last, bitmap=None if whole else bytes(self._bits))


def _cut(
    requests: Iterable[tuple[int, int, int, int]], *, max_requests: int, max_bytes: int, max_tokens: int | None
) -> Iterator[Ordinals]:
    """Fills jobs in order of the requests, each with requests of one group only.

    `requests` are the ordinal, the group, the size in bytes and the estimated tokens of each.
    """
    most = sys.maxsize if max_tokens is None else max_tokens
    filling: dict[int, _Open] = {}
    for ordinal, group, size, tokens in requests:
        job = filling.get(group)
        if job is not None and (
            job.requests >= max_requests or job.bytes + size > max_bytes or job.tokens + tokens > most
        ):
            yield filling.pop(group).ordinals()
            job = None
        if job is None:
            job = filling[group] = _Open(ordinal)
        job.add(ordinal, size, tokens)
    yield from (job.ordinals() for job in filling.values())
