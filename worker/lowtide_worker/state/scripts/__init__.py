"""The worker's scripts: what each is called with. Its file says what it does and returns."""

from __future__ import annotations

from typing import Any

from lowtide.store import Key, Value, Values, script, script_with
from lowtide_worker.state.scripts.admission import accepted, admit, free_slots, refused, release
from lowtide_worker.state.scripts.clock import advance, begin, claim, keep, put_back
from lowtide_worker.state.scripts.results import grant, grant_bundled, recollect, record

__all__ = [
    "accepted",
    "add_measured",
    "admit",
    "advance",
    "await_listener",
    "begin",
    "claim",
    "close",
    "divide",
    "draft",
    "drop_undelivered",
    "forget",
    "forget_job",
    "free_slots",
    "grant",
    "grant_bundled",
    "handed_over",
    "keep",
    "lines",
    "lose",
    "miss",
    "note_delivery",
    "note_problem",
    "offer",
    "plan",
    "put_back",
    "recollect",
    "record",
    "refused",
    "release",
    "restart",
    "seal",
    "segment",
    "spare",
]


@script
def add_measured(*, counters: Key, latencies: Key, totals: Values, times: Values) -> Any: ...


@script
def await_listener(
    *,
    segment: Key,
    listeners: Key,
    in_hand: Key,
    queued: Key,
    batch: Key,
    member: Value,
    token: Value,
    fresh: Value,
    problem: Value,
    kept: Value,
) -> Any: ...


@script_with("turns", "budgets", "numbers")
def close(
    *,
    job: Key,
    batch: Key,
    clock: Key,
    carried: Key,
    census: Key,
    counters: Key,
    quota: Key,
    result_index: Key,
    counted_rows: Key,
    known_strangers: Key,
    member: Value,
    token: Value,
    stage: Value,
    batch_member: Value,
    batch_stage: Value,
    retention: Value,
    job_hash: Value,
    job_member: Value,
    job_id: Value,
    error: Value,
    tidy: Value,
    counted: Value,
    index_moved: Value,
    entity_prefix: Value,
    reserved_prefix: Value,
    waiting_for_prefix: Value,
    estimated: Value,
    reported: Value,
    ended: Value,
    unstored: Value,
    linger: Value,
    enough: Value,
    most: Value,
    most_bytes: Value,
    numbers: Value,
    totals: Values,
    jobs: Values,
) -> Any: ...


@script_with("numbers")
def divide(
    *,
    job: Key,
    batch: Key,
    clock: Key,
    carried: Key,
    census: Key,
    token: Value,
    job_hash: Value,
    job_member: Value,
    counted: Value,
    kept_bitmap: Value,
    bitmap: Value,
    numbers: Value,
    kept: Values,
    fields: Values,
) -> Any: ...


@script
def draft(
    *,
    batch: Key,
    census: Key,
    token: Value,
    job_hash: Value,
    job_carried: Value,
    job_id: Value,
    first: Value,
    counted: Value,
    shared: Values,
    jobs: Values,
) -> Any: ...


@script
def drop_undelivered(*, undelivered: Key, members: Values) -> Any: ...


@script
def forget(
    *,
    batch: Key,
    settled: Key,
    batches: Key,
    clock: Key,
    idempotency: Key,
    destination: Key,
    census: Key,
    bundled: Key,
    requests: Key,
    batch_id: Value,
    member: Value,
    token: Value,
    batch_prefix: Value,
    batch_member: Value,
) -> Any: ...


@script
def forget_job(
    *,
    batch: Key,
    job: Key,
    carried: Key,
    result_index: Key,
    clock: Key,
    segments_clock: Key,
    parked: Key,
    in_hand: Key,
    queued: Key,
    census: Key,
    counted_rows: Key,
    known_strangers: Key,
    token: Value,
    job_member: Value,
    segment_member: Value,
    hash_prefix: Value,
) -> Any: ...


@script
def handed_over(
    *,
    segment: Key,
    batch: Key,
    clock: Key,
    parked: Key,
    census: Key,
    latencies: Key,
    job: Key,
    member: Value,
    token: Value,
    parks: Value,
    latency: Value,
    bounds: Values,
) -> Any: ...


@script
def lines(
    *,
    models: Key,
    most: Value,
    waiting_prefix: Value,
    tokens_prefix: Value,
    quota_prefix: Value,
    priorities: Value,
) -> Any: ...


@script
def lose(
    *,
    batch: Key,
    clock: Key,
    idempotency: Key,
    destination: Key,
    census: Key,
    counters: Key,
    singles: Key,
    waiting_files: Key,
    member: Value,
    batch_prefix: Value,
    token: Value,
    error: Value,
    stage: Value,
    retention: Value,
    counter: Value,
    reason: Value,
    waiting_name: Value,
) -> Any: ...


@script
def miss(
    *, job: Key, hooks: Key, live: Key, clock: Key, poll_stage: Value, job_hash: Value, job_member: Value
) -> Any: ...


@script_with("budgets")
def narrow(
    *,
    job: Key,
    carried: Key,
    clock: Key,
    token: Value,
    bitmap: Value,
    job_id: Value,
    member: Value,
    under: Value,
    job_hash: Value,
    entity_prefix: Value,
    reserved_prefix: Value,
    waiting_for_prefix: Value,
    kept: Values,
) -> Any: ...


@script
def note_delivery(
    *,
    segment: Key,
    batch: Key,
    member: Value,
    token: Value,
    problem: Value,
    attempt: Value,
    most: Value,
    pause: Value,
) -> Any: ...


@script
def note_problem(*, segment: Key, batch: Key, token: Value, problem: Value) -> Any: ...


@script
def offer(
    *, segment: Key, in_hand: Key, queued: Key, batch: Key, member: Value, token: Value, most: Value, patience: Value
) -> Any: ...


@script
def plan(
    *,
    batch: Key,
    clock: Key,
    census: Key,
    requests: Key,
    member: Value,
    token: Value,
    job_hash: Value,
    job_member: Value,
    job_carried: Value,
    jobs: Value,
    stage: Value,
) -> Any: ...


@script
def restart(*, job: Key, token: Value) -> Any: ...


@script_with("shares")
def seal(
    *,
    batch: Key,
    lane: Key,
    live: Key,
    limit: Key,
    models: Key,
    census: Key,
    token: Value,
    slots: Value,
    model: Value,
    waiting_prefix: Value,
    strand_prefix: Value,
    most: Value,
    oldest: Value,
    batches: Value,
    batch_prefix: Value,
) -> Any: ...


@script
def segment(
    *,
    job: Key,
    clock: Key,
    segments_clock: Key,
    next_clock: Key,
    census: Key,
    member: Value,
    token: Value,
    stage: Value,
    watch: Value,
    version: Value,
    batch_id: Value,
    job_id: Value,
    segment_stage: Value,
    origin: Value,
    segment_hash: Value,
    segment_member: Value,
    piece: Value,
    collected: Value,
    spans: Values,
) -> Any: ...


@script
def spare(*, entity: Key, batch: Key, settled: Key, batches: Key, token: Value, batch_prefix: Value) -> Any: ...
