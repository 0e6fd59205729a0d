"""submit: cuts a batch into jobs within the provider's limits."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Iterable, Iterator

from lowtide.errors import SpoolError
from lowtide.models import REQUESTS_LOST, ResultError
from lowtide.protocol import BatchFiles, Queue
from lowtide.spool import ENTRY, PAIR, RequestReader
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.in_place import lines_elsewhere
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Done, HeldBatch, Ordinals

log = logging.getLogger(__name__)

_AT_ONCE = 500
"""Most jobs in one script: Redis takes at most a million arguments, and serves nothing else meanwhile."""


def submit(runtime: Runtime, batch: HeldBatch) -> Done:
    """Plans the jobs of a batch and puts them on the clock, or ends a batch whose requests are gone."""
    if damaged := _damaged(runtime, batch):
        return _without_requests(runtime, batch, damaged)
    jobs, count = _jobs(runtime, batch), 0
    while some := list(itertools.islice(jobs, _AT_ONCE)):
        reach("submit.before-draft")
        runtime.ledger.draft(batch, count + 1, some)
        count += len(some)
    reach("submit.before-plan")
    runtime.ledger.plan(batch, count)
    reach("submit.after-plan")
    return Done({"jobs": count}, wakes=(Queue.JOBS,))


def _jobs(runtime: Runtime, batch: HeldBatch) -> Iterator[Ordinals]:
    if batch.record.sources:
        # Submit has checked that it fits one job. If it were cut, each job would be given the whole source.
        return iter([Ordinals(first=0, last=batch.record.total)])
    settings = runtime.settings
    reader = RequestReader(runtime.spool, batch.batch_id)
    max_requests = settings.max_requests_per_job
    max_bytes = settings.max_job_bytes(batch.record.mode, batch.record.provider)
    max_tokens = settings.max_tokens(batch.record.model)
    if batch.record.groups > 1 and (groups := reader.groups()) is not None:
        return _cut(groups, max_requests=max_requests, max_bytes=max_bytes, max_tokens=max_tokens)
    cuts = reader.cuts(batch.record.total, max_requests=max_requests, max_bytes=max_bytes, max_tokens=max_tokens)
    return (Ordinals(first=first, last=last) for first, last in cuts)


def _damaged(runtime: Runtime, batch: HeldBatch) -> str | None:
    """The name of a file of the batch that is missing or not whole; None where all are whole."""
    files, spool, total = BatchFiles(batch.batch_id), runtime.spool, batch.record.total
    if spool.size(files.index) != (total + 1) * ENTRY.size:
        return files.index
    line_end, key_end, _ = RequestReader(spool, batch.batch_id).sums(total)
    sizes = {files.keys: key_end}
    if not lines_elsewhere(batch.record):
        sizes[files.requests] = line_end
    if batch.record.sources:
        sizes[files.key_index] = total * PAIR.size
    if batch.record.groups > 1:
        sizes[files.groups] = total
    return next((name for name, size in sizes.items() if spool.size(name) != size), None)


def _without_requests(runtime: Runtime, batch: HeldBatch, damaged: str) -> Done:
    """Ends the batch. Raises `SpoolError` for as long as the spool may only be away for a moment."""
    now, grace = batch.now(), runtime.settings.output_grace_seconds
    since = batch.record.damaged_since or now
    if now - since < grace:
        runtime.clock.keep(batch, {"damaged_since": since})
        raise SpoolError(f"{damaged} is missing or not whole; after {grace:g} s of this, the batch has failed")
    message = f"{damaged} is missing from the spool, or not whole, so nothing was sent; submit the requests again"
    runtime.ledger.lose(batch, ResultError(reason=REQUESTS_LOST, message=message))
    log.error("batch %s has ended without results: %s", batch.batch_id, message, extra=Event.BATCH_LOST.extra)
    return Done({"state": "failed", "missing": damaged})


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
    groups: Iterable[tuple[int, int, int]], *, max_requests: int, max_bytes: int, max_tokens: int | None
) -> Iterator[Ordinals]:
    """Fills jobs in order of the requests, each with requests of one group only."""
    most = sys.maxsize if max_tokens is None else max_tokens
    filling: dict[int, _Open] = {}
    for ordinal, (group, size, tokens) in enumerate(groups):
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
