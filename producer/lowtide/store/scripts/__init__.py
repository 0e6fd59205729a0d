"""The scripts of producers and handlers: the keys and arguments of each. Its file says what it does and returns."""

from __future__ import annotations

from typing import Any

from lowtide.store.scripting import Key, Value, Values, script


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
def free_place(
    *, batch: Key, clock: Key, member: Value, in_hand_prefix: Value, queued_prefix: Value, hash_prefix: Value
) -> Any: ...


@script
def hand_back(
    *,
    batch: Key,
    segment: Key,
    clock: Key,
    parked: Key,
    census: Key,
    member: Value,
    pause: Value,
    attempt: Value,
    fields: Values,
) -> Any: ...


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
def register(
    *,
    batch: Key,
    batches: Key,
    clock: Key,
    idempotency: Key,
    destination: Key,
    census: Key,
    lane: Key,
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
    bundle_fields: Values,
    fields: Values,
) -> Any: ...


@script
def started(*, segment: Key, attempt: Value) -> Any: ...


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
