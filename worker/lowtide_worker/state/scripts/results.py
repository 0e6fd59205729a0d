"""Scripts that decide which rows become results, and count them: see `ledger` beside this folder."""

from __future__ import annotations

from typing import Any

from lowtide.store import Key, Value, Values, script, script_with


@script_with("counting")
def grant(
    *,
    segment: Key,
    settled: Key,
    batch: Key,
    counted_rows: Key,
    known_strangers: Key,
    token: Value,
    ordinals: Value,
    final: Value,
    consecutive: Value,
    first: Value,
    strangers: Value,
) -> Any: ...


@script_with("counting")
def grant_bundled(
    *,
    segment: Key,
    settled: Key,
    batch: Key,
    counted_rows: Key,
    known_strangers: Key,
    token: Value,
    ordinals: Value,
    final: Value,
    first: Value,
    strangers: Value,
    batch_prefix: Value,
    settled_prefix: Value,
    shares: Values,
) -> Any: ...


@script
def recollect(
    *,
    segment: Key,
    job: Key,
    settled: Key,
    clock: Key,
    job_clock: Key,
    census: Key,
    counted_rows: Key,
    known_strangers: Key,
    member: Value,
    token: Value,
    job_member: Value,
    stage: Value,
    first: Value,
    settled_prefix: Value,
    shares: Values,
) -> Any: ...


@script
def record(
    *,
    segment: Key,
    job: Key,
    batch: Key,
    clock: Key,
    job_clock: Key,
    census: Key,
    counters: Key,
    result_index: Key,
    costs: Key,
    member: Value,
    token: Value,
    job_member: Value,
    handler_waits: Value,
    lease: Value,
    most: Value,
    others: Value,
    bundled: Value,
    batch_prefix: Value,
    batch_member: Value,
    batch_stage: Value,
    retention: Value,
    jobs_hash: Value,
    jobs_member: Value,
    cost_names: Value,
    counts: Values,
    totals: Values,
    paid: Values,
    failed_by: Values,
    answered_by: Values,
    retried_by: Values,
    places: Values,
    daily: Values,
) -> Any: ...
