"""submit: cuts a batch into jobs within the provider's limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lowtide.messages import Queue
from lowtide.requests import RequestReader
from lowtide.states import Mode, ProviderName
from lowtide_worker.clock import Done, Held
from lowtide_worker.crashpoints import reach
from lowtide_worker.ordinals import Rows
from lowtide_worker.runtime import Runtime


def submit(runtime: Runtime, batch: Held) -> Done:
    """Plans the jobs of a batch and puts them on the clock."""
    jobs = list(_jobs(runtime, batch))
    reach("submit.before-plan")
    runtime.ledger.plan(batch, jobs)
    reach("submit.after-plan")
    return Done({"jobs": len(jobs)}, wakes=(Queue.JOBS,))


def _jobs(runtime: Runtime, batch: Held) -> Iterator[Rows]:
    if batch.fields.get("sources"):
        # Whoever took it in saw that it fits one job; cut up, each job would be given the whole source.
        return iter([Rows(first=0, last=batch.number("total"))])
    settings = runtime.settings
    reader = RequestReader(runtime.spool, batch.batch_id)
    max_requests = settings.max_requests_per_job
    max_bytes = settings.max_job_bytes(Mode(batch.fields["mode"]), ProviderName(batch.fields["provider"]))
    if (groups := reader.groups()) is not None:
        return _cut(groups, max_requests=max_requests, max_bytes=max_bytes)
    cuts = reader.cuts(batch.number("total"), max_requests=max_requests, max_bytes=max_bytes)
    return (Rows(first=first, last=last) for first, last in cuts)


class _Open:
    """A job that is being filled with requests of its group."""

    def __init__(self, first: int) -> None:
        self.first = self.last = first
        self.requests = self.bytes = 0
        self._bits = bytearray()

    def add(self, ordinal: int, size: int) -> None:
        at = ordinal - self.first
        self._bits.extend(bytes(at // 8 + 1 - len(self._bits)))
        self._bits[at // 8] |= 0x80 >> at % 8
        self.last = ordinal + 1
        self.requests += 1
        self.bytes += size

    def rows(self) -> Rows:
        whole = self.requests == self.last - self.first
        return Rows(first=self.first, last=self.last, bitmap=None if whole else bytes(self._bits))


def _cut(groups: Iterable[tuple[int, int]], *, max_requests: int, max_bytes: int) -> Iterator[Rows]:
    """Fills jobs in order of the requests, each with requests of one group only."""
    filling: dict[int, _Open] = {}
    for ordinal, (group, size) in enumerate(groups):
        job = filling.get(group)
        if job is not None and (job.requests >= max_requests or job.bytes + size > max_bytes):
            yield filling.pop(group).rows()
            job = None
        if job is None:
            job = filling[group] = _Open(ordinal)
        job.add(ordinal, size)
    yield from (job.rows() for job in filling.values())
