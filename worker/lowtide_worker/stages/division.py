"""division: leaves a job that is not created yet as many requests as there is room for at the provider.

The provider limits the tokens of all live jobs of a model, and a budget limits what they cost. A job is divided when it
is admitted, because only then is known how many tokens are free, and how many the budget pays for. What it does not
keep is a new job, which waits for its own turn.

Requests of a bundle that no batch wants any more are left out before that.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, repeat
from typing import NamedTuple

from lowtide.pricing import TokenPrice
from lowtide.protocol import BatchRecord, Stage
from lowtide.shaping.tokens import ASSUMED_OUTPUT_TOKENS
from lowtide.spool import RequestReader
from lowtide.states import JobState
from lowtide_worker.bundling import batches_with
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.in_place import in_place
from lowtide_worker.intents import forgotten_intent, forgotten_jobs
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Admitted, HeldJob, JobMove, JobTokens, Move, Ordinals, divided, parted

log = logging.getLogger(__name__)


class Weight(NamedTuple):
    """The estimated tokens of one request."""

    ordinal: int
    tokens: int
    """Those of its input."""
    output: int
    """Its most output tokens."""


def tokens_of(runtime: Runtime, job: HeldJob, reader: RequestReader, *, output: bool) -> JobTokens:
    """Returns the estimated tokens of a job; also those of output, which a budget counts, if `output`."""
    known = job.record
    if known.tokens and known.least:
        if not output:
            return JobTokens(known.tokens, known.least)
        if known.output_tokens is not None and known.least_output is not None:
            return JobTokens(known.tokens, known.least, known.output_tokens, known.least_output)
    carried = runtime.ledger.carried(job)
    if carried.bitmap is None:
        first, whole = (_range(job.batch, reader, carried.first, last) for last in (carried.first + 1, carried.last))
    else:
        weights = list(_weights(job.batch, reader, carried))
        first, whole = weights[0], _sum(weights)
    if in_place(job.batch, job.record):
        # The provider reads a source in place as a whole.
        first = whole
    return JobTokens(max(1, whole.tokens), max(1, first.tokens), whole.output, first.output)


def divide(runtime: Runtime, job: HeldJob, reader: RequestReader, most: Admitted) -> bool:
    """Gives those requests of a job to a new job that are more than `most`; returns whether it did."""
    if job.record.requests == 1 or in_place(job.batch, job.record):
        return False
    carried = runtime.ledger.carried(job)
    at = _end(reader, carried, most.tokens)
    if most.cost is not None and (price := runtime.admission.price(job)):
        at = min(at, _affordable(_weights(job.batch, reader, carried), price, most.cost, end=carried.last))
    if at >= carried.last:
        return False
    # A job that Redis has forgotten may exist already, with all these requests.
    if forgotten_intent(runtime, job):
        return False
    # Nor is a job that was divided from this one, and that Redis has forgotten, to be created under another number.
    forgotten = forgotten_jobs(runtime, job)
    number, at = _first_of(carried, forgotten, at)
    _drop_input(runtime, job)
    reach("create.before-divide")
    runtime.ledger.divide(job, *divided(carried, at), number=number, beyond=max(forgotten, default=0))
    reach("create.after-divide")
    log.info("job %s: divided, to fit the provider's quota or a budget", job.record.id, extra=Event.JOB_DIVIDED.extra)
    return True


def narrow(runtime: Runtime, job: HeldJob) -> JobMove | None:
    """Leaves out those requests of a bundle's job whose batches were cancelled, or have ended; returns its next move.

    Returns None where all requests are wanted, or where the provider may have the job with all of them.
    """
    runtime.bundles.spare(job)
    carried = runtime.ledger.carried(job)
    wanted = runtime.ledger.unsettled(job.batch_id, carried)
    if (wanted is not None and len(wanted) == len(carried)) or forgotten_intent(runtime, job):
        return None
    if wanted is None:
        runtime.admission.release(job)
        return Move(stage=Stage.SETTLE, fields={"state": JobState.CANCELLED, "error": None})
    if job.record.doubtful_creates:
        return None
    _drop_input(runtime, job)
    reach("create.before-narrow")
    batch = job.batch
    some = batches_with(wanted, runtime.batches_of(batch.id, batch.bundled, batch.total)) if job.record.budgets else ()
    runtime.bundles.narrow(job, wanted, some)
    reach("create.after-narrow")
    # It is read again, with the requests that are left to it.
    return Move(stage=Stage.CREATE)


def _drop_input(runtime: Runtime, job: HeldJob) -> None:
    """Deletes the uploaded input of a job that gets other requests."""
    if job.record.input:
        runtime.provider(job.batch.provider).delete_input(job.record.input)
        runtime.clock.keep(job, {"input": None})


def _first_of(carried: Ordinals, forgotten: Mapping[int, Ordinals], at: int) -> tuple[int, int]:
    """The number of the forgotten job to which the requests from `at` on belong, or 0; and `at`, lower if need be."""
    number, start = 0, next(iter(carried))
    for each, requests in sorted(forgotten.items()):
        own, _ = parted(carried, requests)
        if own is not None and start < own.first <= at:
            number, at = each, own.first
    return number, at


def _end(reader: RequestReader, carried: Ordinals, most: int) -> int:
    """The ordinal behind those of a job's first requests that have at most so many tokens; at least one has."""
    if carried.bitmap is None:
        end = reader.fitting(carried.first, carried.last, max_bytes=sys.maxsize >> 1, max_tokens=most)
        return max(end, carried.first + 1)
    # The bitmap of a pool begins at a whole byte: `carried.first` need not be carried.
    total, start = 0, next(iter(carried))
    for ordinal, tokens in _counts(reader, carried):
        total += tokens
        if total > most and ordinal > start:
            return ordinal
    return carried.last


def _affordable(weights: Iterator[Weight], price: TokenPrice, most: int, *, end: int) -> int:
    """The ordinal behind the first requests that cost at most so many nano-dollars; at least one. `end`: of all."""
    tokens = output = 0
    for place, weight in enumerate(weights):
        tokens, output = tokens + weight.tokens, output + weight.output
        if place and price.cost(tokens, output) > most:
            return weight.ordinal
    return end


def _weights(batch: BatchRecord, reader: RequestReader, carried: Ordinals) -> Iterator[Weight]:
    """The estimated tokens of each request of a job, in order.

    Where the producer did not count the output tokens, each request has as many as the average one of the batch.
    """
    outputs = reader.outputs(carried.first, carried.last) or repeat(_average_output(batch))
    at = carried.first
    for ordinal, tokens in _counts(reader, carried):
        yield Weight(ordinal, tokens, next(islice(outputs, ordinal - at, None), 0))
        at = ordinal + 1


def _range(batch: BatchRecord, reader: RequestReader, first: int, last: int) -> Weight:
    """The estimated tokens of requests [first, last) together."""
    output = reader.output(first, last)
    return Weight(
        first, reader.tokens(first, last), _average_output(batch) * (last - first) if output is None else output
    )


def _average_output(batch: BatchRecord) -> int:
    """The most output tokens of an average request of a batch."""
    return ASSUMED_OUTPUT_TOKENS if batch.output_tokens is None else -(-batch.output_tokens // max(1, batch.total))


def _sum(weights: Sequence[Weight]) -> Weight:
    tokens, output = (sum(weight[part] for weight in weights) for part in (1, 2))
    return Weight(weights[0].ordinal, tokens, output)


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
