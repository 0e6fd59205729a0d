"""division: divides a job that no quota lets in, not even alone, before it is created.

The provider does not say how many tokens may be enqueued. A job that is refused while no other is live is too large by
itself, so the jobs of its model are halved until one is taken. Each that is taken raises the size again.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

from lowtide.spool import RequestReader
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.in_place import in_place
from lowtide_worker.intents import forgotten_intent
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import HeldJob, Ordinals, divided

log = logging.getLogger(__name__)


def divide(runtime: Runtime, job: HeldJob) -> bool:
    """Gives a part of a job's requests to a new job, where it is larger than a job may be; returns whether it did."""
    most = runtime.admission.largest(job)
    # The provider reads a source in place as a whole.
    if most is None or job.record.requests == 1 or in_place(job.batch, job.record):
        return False
    carried = runtime.ledger.carried(job)
    at = _end(runtime, job, carried, most)
    # A job that Redis has forgotten may exist already, with all these requests.
    if at >= carried.last or forgotten_intent(runtime, job):
        return False
    if job.record.input:
        runtime.provider(job.batch.provider).delete_input(job.record.input)
        runtime.clock.keep(job, {"input": None})
    reach("create.before-divide")
    runtime.ledger.divide(job, *divided(carried, at))
    reach("create.after-divide")
    log.warning("job %s: divided, to fit the provider's quota", job.record.id, extra=Event.JOB_DIVIDED.extra)
    return True


def tokens_of(runtime: Runtime, job: HeldJob) -> int:
    """Returns the estimated input tokens of a job."""
    carried = runtime.ledger.carried(job)
    reader = RequestReader(runtime.spool, job.batch_id)
    if carried.bitmap is None:
        return reader.tokens(carried.first, carried.last)
    return sum(tokens for _, tokens in _counts(reader, carried))


def _end(runtime: Runtime, job: HeldJob, carried: Ordinals, most: int) -> int:
    """The ordinal behind those of a job's first requests that have at most so many tokens; at least one has."""
    reader = RequestReader(runtime.spool, job.batch_id)
    if carried.bitmap is None:
        end = reader.fitting(carried.first, carried.last, max_bytes=sys.maxsize >> 1, max_tokens=most)
        return max(end, carried.first + 1)
    total = 0
    for ordinal, tokens in _counts(reader, carried):
        total += tokens
        if total > most and ordinal > carried.first:
            return ordinal
    return carried.last


def _counts(reader: RequestReader, carried: Ordinals) -> Iterator[tuple[int, int]]:
    """The estimated input tokens of some requests, by ordinal."""
    wanted = iter(carried)
    ordinal = next(wanted, None)
    for at, (_, tokens) in enumerate(reader.sizes()):
        if at == ordinal:
            yield at, tokens
            ordinal = next(wanted, None)
        if ordinal is None:
            return
