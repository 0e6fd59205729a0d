"""The scripts of producers and handlers: the keys and arguments of each. Its file says what it does and returns."""

from __future__ import annotations

from typing import Any

from lowtide.store.scripting import Key, Keys, Value, Values, script, script_with


@script
def add(
    *,
    gathering: Key,
    clock: Key,
    census: Key,
    files: Key,
    batch_id: Value,
    salt: Value,
    batch_prefix: Value,
    batch_member: Value,
    singles_prefix: Value,
    waiting_name: Value,
    most: Value,
    linger: Value,
    enough: Value,
    enough_bytes: Value,
    enough_tokens: Value,
    allowed: Value,
    key_prefix: Value,
    key_seconds: Value,
    asked_prefix: Value,
    reuse: Value,
    asked_seconds: Value,
    trace: Value,
    traces_chars: Value,
    fields: Value,
    singles: Value,
) -> Any: ...


@script
def announce(*, serving: Key, announcement: Value, former: Value, kept: Value) -> Any: ...


@script
def cancel(
    *,
    batch: Key,
    clock: Key,
    census: Key,
    job_prefix: Value,
    batch_prefix: Value,
    batch_member: Value,
    lane_prefix: Value,
    job_hash: Value,
    job_member: Value,
    cancelled: Values,
) -> Any: ...


@script
def delete(*, batch: Key, clock: Key, census: Key, member: Value, stage: Value, finished: Values) -> Any: ...


@script
def end_event(*, event: Key, clock: Key, parked: Key, census: Key, batch: Key, member: Value, token: Value) -> Any: ...


@script
def find_results(
    *,
    batch: Key,
    settled: Key,
    bundled: Key,
    batch_id: Value,
    job_hash: Value,
    carried: Value,
    result_index: Value,
    entry_bytes: Value,
    ordinals: Values,
) -> Any: ...


@script
def free_place(
    *, batch: Key, clock: Key, member: Value, in_hand_prefix: Value, queued_prefix: Value, hash_prefix: Value
) -> Any: ...


@script_with("bundle")
def gathered(
    *,
    batch: Key,
    clock: Key,
    batches: Key,
    census: Key,
    singles: Key,
    waiting_files: Key,
    lane: Key,
    token: Value,
    batch_id: Value,
    member: Value,
    stage: Value,
    waiting_name: Value,
    batch_prefix: Value,
    counted: Value,
    total: Value,
    size: Value,
    tokens: Value,
    output: Value,
    lane_name: Value,
    allowed: Value,
    bundle_id: Value,
    batch_member: Value,
    bundled: Value,
    linger: Value,
    enough: Value,
    most: Value,
    most_bytes: Value,
    most_batches: Value,
    requests: Value,
    requests_prefix: Value,
    bundle_fields: Value,
    files: Values,
) -> Any: ...


@script
def hand_back(
    *,
    batch: Key,
    segment: Key,
    clock: Key,
    parked: Key,
    census: Key,
    job: Key,
    member: Value,
    number: Value,
    pause: Value,
    attempt: Value,
    fields: Values,
) -> Any: ...


@script
def hand_back_event(
    *, event: Key, clock: Key, parked: Key, batch: Key, member: Value, pause: Value, attempt: Value, problem: Value
) -> Any: ...


@script
def hint(
    *,
    events: Key,
    live: Key,
    clock: Key,
    hooks: Key,
    counters: Key,
    event: Value,
    kept: Value,
    most: Value,
    job_id: Value,
    pause: Value,
    create_stage: Value,
    poll_stage: Value,
    job_hash: Value,
    job_member: Value,
    names: Values,
) -> Any: ...


@script
def holdings(*, reserved: Keys, job_hash: Value, waiting_for: Values) -> Any: ...


@script
def job_states(*, batch: Key, job_prefix: Value, first: Value, last: Value) -> Any: ...


@script
def listen(
    *,
    listeners: Key,
    handlers: Key,
    queued: Key,
    in_hand: Key,
    clock: Key,
    handler: Value,
    queue: Value,
    worker: Value,
    fresh: Value,
    worker_kept: Value,
    handler_kept: Value,
    hash_prefix: Value,
    most: Value,
) -> Any: ...


@script
def note_event(*, batch: Key, problem: Value) -> Any: ...


@script
def park_event(
    *, event: Key, clock: Key, parked: Key, census: Key, member: Value, token: Value, kept: Value
) -> Any: ...


@script_with("bundle")
def register(
    *,
    installation: Key,
    batch: Key,
    batches: Key,
    clock: Key,
    idempotency: Key,
    destination: Key,
    census: Key,
    lane: Key,
    installation_id: Value,
    batch_id: Value,
    member: Value,
    grace: Value,
    fingerprint: Value,
    keyed: Value,
    claimed: Value,
    batch_prefix: Value,
    counted: Value,
    total: Value,
    size: Value,
    tokens: Value,
    output: Value,
    lane_name: Value,
    allowed: Value,
    bundle_id: Value,
    batch_member: Value,
    bundled: Value,
    linger: Value,
    enough: Value,
    most: Value,
    most_bytes: Value,
    most_batches: Value,
    requests: Value,
    requests_prefix: Value,
    bundle_fields: Value,
    fields: Value,
) -> Any: ...


@script
def seal_singles(*, batch: Key, gathering: Key, singles: Key, token: Value) -> Any: ...


@script
def set_max_cost(*, batch: Key, clock: Key, waiting_for: Key, max_cost: Value, entity_prefix: Value) -> Any: ...


@script
def started(*, segment: Key, attempt: Value) -> Any: ...


@script
def states(*, records: Keys, field: Value) -> Any: ...


@script
def taken(
    *,
    batch: Key,
    segment: Key,
    clock: Key,
    parked: Key,
    census: Key,
    latencies: Key,
    job: Key,
    member: Value,
    latency: Value,
    bounds: Values,
) -> Any: ...


@script
def unpark(*, segment: Key, batch: Key, parked: Key, clock: Key, census: Key, member: Value, stage: Value) -> Any: ...


@script
def unpark_event(*, event: Key, clock: Key, parked: Key, census: Key, member: Value) -> Any: ...
