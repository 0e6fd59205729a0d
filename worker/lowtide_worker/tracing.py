"""Traces of stages: one span for each run, in the trace of the submit whose requests it works on.

A stage of a bundle works on the requests of many submits, and one of a batch of singles on those of many calls of
`add`. Each of its runs has a trace of its own, with links to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from threading import Thread
from typing import Any, cast

import redis

from lowtide import tracing
from lowtide.protocol import BatchRecord, Stage, keys
from lowtide.tracing import HEADERS, Headers
from lowtide_worker.events import ids
from lowtide_worker.state import Held, HeldBatch, HeldEvent, HeldJob, HeldSegment

_MOST_LINKS = 32
"""Most links of a span to the submits of a bundle, or to the calls that added singles: the first of them."""
_BUNDLES_KEPT = 32
"""Bundles whose links a process remembers."""
_FLUSH_SECONDS = 2.0
"""Longest wait for an exporter whose collector may not answer."""


def stage_span(client: redis.Redis, held: Held[Any]) -> AbstractContextManager[None]:
    """Returns the span of one run of a stage."""
    about: dict[str, str | int] = {f"lowtide.{name}": value for name, value in ids(held.member).items()}
    parent: Headers = {}
    links: Sequence[Headers] = ()
    if tracing.is_on() and isinstance(held, (HeldBatch, HeldJob, HeldSegment, HeldEvent)) and held.damage is None:
        batch = held.batch
        about |= tracing.of_model(batch.model, batch.provider, batch.kind)
        about |= tracing.of_batch(held.batch_id, held.record.requests if isinstance(held, HeldJob) else batch.total)
        parent = _submitted(batch)
        links = _links(client, held.batch_id, batch.bundled) if batch.bundled else _adds(batch.traces)
    operation = held.stage.rpartition(".")[2]
    return tracing.span(operation, held.stage.queue, "CONSUMER", about, parent=parent, links=links)


def describe_end(held: Held[Any], report: Mapping[str, object]) -> None:
    """Adds to the span of a stage how it ended, and to that which closes a job the tokens of the job's rows."""
    about: dict[str, str | int] = {f"lowtide.{name}": str(report[name]) for name in ("state", "next") if name in report}
    if held.stage is Stage.SETTLE and "batch" in report and isinstance(held, HeldJob):
        job = held.record
        about["gen_ai.usage.input_tokens"] = job.paid_prompt_token_count
        about["gen_ai.usage.output_tokens"] = job.paid_candidates_token_count + job.paid_thoughts_token_count
    tracing.describe(about)


def onward(batch: BatchRecord) -> Headers:
    """Returns the span that a handler continues: the present one, or else that of the submit."""
    return tracing.current() or _submitted(batch)


def flush_spans() -> None:
    """Has the spans exported that wait for it, for two seconds at most: a process that ends would lose them."""
    if not tracing.is_on():
        return
    from opentelemetry import trace

    # A method of the SDK, which the API does not have.
    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        thread = Thread(target=flush, daemon=True)
        thread.start()
        thread.join(_FLUSH_SECONDS)


def _submitted(batch: BatchRecord) -> Headers:
    return tracing.checked({name: getattr(batch, name) for name in HEADERS})


@lru_cache(maxsize=_BUNDLES_KEPT)
def _links(client: redis.Redis, bundle_id: str, bundled: int) -> Sequence[Headers]:
    """The spans in which the requests of a bundle's first batches were submitted or added.

    - `bundled`: the number of its batches so far.
    """
    del bundled
    names = cast("list[bytes]", client.zrange(keys.bundled(bundle_id), 0, _MOST_LINKS - 1))
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hmget(keys.batch(name.decode(errors="replace")), (*HEADERS, "traces"))
        found = pipe.execute(raise_on_error=False)
    # One record that another program has damaged takes no link from the others.
    records = (values for values in found if isinstance(values, list))
    texts = ([value and value.decode(errors="replace") for value in each] for each in records)
    links: list[Headers] = []
    for parent, state, traces in texts:
        submit = tracing.checked(dict(zip(HEADERS, (parent, state), strict=True)))
        links += [submit] if submit else _adds(traces)
    return links[:_MOST_LINKS]


def _adds(traces: str | None) -> Sequence[Headers]:
    """The spans of the calls that added the singles of a batch, as its record has them."""
    found = (tracing.checked({"traceparent": parent}) for parent in (traces or "").split(" "))
    return [headers for headers in found if headers][:_MOST_LINKS]
