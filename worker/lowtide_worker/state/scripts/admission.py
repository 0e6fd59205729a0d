"""Scripts that decide which jobs may be created: see `admission` beside this folder."""

from __future__ import annotations

from typing import Any

from lowtide.store import Key, Value, script_with


@script_with("turns")
def accepted(
    *,
    job: Key,
    live: Key,
    limit: Key,
    models: Key,
    clock: Key,
    token: Value,
    job_id: Value,
    most: Value,
    model: Value,
    job_hash: Value,
    job_member: Value,
    waiting_prefix: Value,
    tokens_prefix: Value,
    quota_prefix: Value,
    patience: Value,
) -> Any: ...


@script_with("turns")
def admit(
    *,
    job: Key,
    live: Key,
    limit: Key,
    models: Key,
    token: Value,
    job_id: Value,
    most: Value,
    priority: Value,
    created: Value,
    model: Value,
    configured: Value,
    tokens: Value,
    least: Value,
    job_hash: Value,
    waiting_prefix: Value,
    tokens_prefix: Value,
    quota_prefix: Value,
) -> Any: ...


@script_with("turns")
def refused(
    *,
    job: Key,
    live: Key,
    limit: Key,
    models: Key,
    clock: Key,
    token: Value,
    job_id: Value,
    most: Value,
    model: Value,
    job_hash: Value,
    job_member: Value,
    waiting_prefix: Value,
    tokens_prefix: Value,
    quota_prefix: Value,
    often: Value,
    lowered_ms: Value,
) -> Any: ...


@script_with("turns")
def release(
    *,
    job: Key,
    live: Key,
    limit: Key,
    models: Key,
    clock: Key,
    token: Value,
    job_id: Value,
    most: Value,
    model: Value,
    job_hash: Value,
    job_member: Value,
    waiting_prefix: Value,
    tokens_prefix: Value,
    quota_prefix: Value,
) -> Any: ...
