"""Scripts that decide which jobs may be created: see `admission` beside this folder."""

from __future__ import annotations

from typing import Any

from lowtide.store import Key, Keys, Value, Values, script_with


@script_with("shares", "turns")
def accepted(
    *,
    job: Key,
    live: Key,
    limit: Key,
    models: Key,
    served: Key,
    clock: Key,
    token: Value,
    job_id: Value,
    most: Value,
    model: Value,
    job_hash: Value,
    job_member: Value,
    waiting_prefix: Value,
    strand_prefix: Value,
    strands_prefix: Value,
    strand_of_prefix: Value,
    share_prefix: Value,
    matched_prefix: Value,
    tokens_prefix: Value,
    quota_prefix: Value,
    patience: Value,
) -> Any: ...


@script_with("shares", "turns", "budgets")
def admit(
    *,
    job: Key,
    batch: Key,
    live: Key,
    limit: Key,
    models: Key,
    served: Key,
    clock: Key,
    token: Value,
    job_id: Value,
    most: Value,
    priority: Value,
    created: Value,
    model: Value,
    configured: Value,
    tokens: Value,
    least: Value,
    output: Value,
    least_output: Value,
    cost: Value,
    least_cost: Value,
    average: Value,
    job_hash: Value,
    job_member: Value,
    waiting_prefix: Value,
    strand_prefix: Value,
    strands_prefix: Value,
    strand_of_prefix: Value,
    share_prefix: Value,
    matched_prefix: Value,
    tokens_prefix: Value,
    quota_prefix: Value,
    budgets: Value,
    entity_prefix: Value,
    reserved_prefix: Value,
    waiting_for_prefix: Value,
) -> Any: ...


@script_with("shares", "turns")
def free_slots(
    *,
    live: Key,
    limit: Key,
    models: Key,
    served: Key,
    clock: Key,
    tokens: Keys,
    most: Value,
    model: Value,
    job_hash: Value,
    job_member: Value,
    waiting_prefix: Value,
    strand_prefix: Value,
    strands_prefix: Value,
    strand_of_prefix: Value,
    share_prefix: Value,
    matched_prefix: Value,
    tokens_prefix: Value,
    quota_prefix: Value,
    jobs: Values,
) -> Any: ...


@script_with("shares", "turns", "budgets")
def refused(
    *,
    job: Key,
    live: Key,
    limit: Key,
    models: Key,
    served: Key,
    clock: Key,
    token: Value,
    job_id: Value,
    most: Value,
    model: Value,
    job_hash: Value,
    job_member: Value,
    waiting_prefix: Value,
    strand_prefix: Value,
    strands_prefix: Value,
    strand_of_prefix: Value,
    share_prefix: Value,
    matched_prefix: Value,
    tokens_prefix: Value,
    quota_prefix: Value,
    entity_prefix: Value,
    reserved_prefix: Value,
    waiting_for_prefix: Value,
    often: Value,
    lowered_ms: Value,
) -> Any: ...


@script_with("shares", "turns", "budgets")
def release(
    *,
    job: Key,
    live: Key,
    limit: Key,
    models: Key,
    served: Key,
    clock: Key,
    token: Value,
    job_id: Value,
    most: Value,
    model: Value,
    job_hash: Value,
    job_member: Value,
    waiting_prefix: Value,
    strand_prefix: Value,
    strands_prefix: Value,
    strand_of_prefix: Value,
    share_prefix: Value,
    matched_prefix: Value,
    tokens_prefix: Value,
    quota_prefix: Value,
    entity_prefix: Value,
    reserved_prefix: Value,
    waiting_for_prefix: Value,
    unsent: Value,
) -> Any: ...
