"""division: leaves a job that is not created yet as many requests as there is room for at the provider.

The provider limits the tokens of all live jobs of a model. A job is divided when it is admitted, because only then
is known how many tokens are free. What it does not keep is a new job, which waits for its own turn.
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
from lowtide_worker.state import HeldJob, JobTokens, Ordinals, divided

log = logging.getLogger(__name__)


def tokens_of(runtime: Runtime, job: HeldJob, reader: RequestReader) -> JobTokens:
    """Returns the estimated input tokens of a job."""
    if job.record.tokens and job.record.least:
        return JobTokens(job.record.tokens, job.record.least)
    carried = runtime.ledger.carried(job)
    if carried.bitmap is None:
        tokens = reader.tokens(carried.first, carried.last)
        first = reader.tokens(carried.first, carried.first + 1)
    else:
        counts = [count for _, count in _counts(reader, carried)]
        tokens, first = sum(counts), counts[0]
    tokens = max(1, tokens)
    # The provider reads a source in place as a whole.
    return JobTokens(tokens, tokens if in_place(job.batch, job.record) else max(1, first))


def divide(runtime: Runtime, job: HeldJob, reader: RequestReader, most: int) -> bool:
    """Gives those requests of a job to a new job that have more than `most` tokens; returns whether it did."""
    if job.record.requests == 1 or in_place(job.batch, job.record):
        return False
    carried = runtime.ledger.carried(job)
    at = _end(reader, carried, most)
    # A job that Redis has forgotten may exist already, with all these requests.
    if at >= carried.last or forgotten_intent(runtime, job):
        return False
    if job.record.input:
        runtime.provider(job.batch.provider).delete_input(job.record.input)
        runtime.clock.keep(job, {"input": None})
    reach("create.before-divide")
    runtime.ledger.divide(job, *divided(carried, at))
    reach("create.after-divide")
    log.info("job %s: divided, to fit the provider's quota", job.record.id, extra=Event.JOB_DIVIDED.extra)
    return True


def _end(reader: RequestReader, carried: Ordinals, most: int) -> int:
    """The ordinal behind those of a job's first requests that have at most so many tokens; at least one has."""
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
    for at, (_, tokens) in enumerate(reader.sizes(carried.first, carried.last), carried.first):
        if at == ordinal:
            yield at, tokens
            ordinal = next(wanted, None)
        if ordinal is None:
            return
