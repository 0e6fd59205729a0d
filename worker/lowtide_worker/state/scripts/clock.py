"""Scripts of the clock: see `clock` beside this folder."""

from __future__ import annotations

from typing import Any

from lowtide.store import Key, Keys, Value, Values, script


@script
def advance(
    *,
    entity: Key,
    clock: Key,
    next_clock: Key,
    census: Key,
    member: Value,
    token: Value,
    stage: Value,
    after: Value,
    lease: Value,
    fields: Values,
) -> Any: ...


@script
def begin(
    *,
    entity: Key,
    clock: Key,
    batch: Key,
    census: Key,
    member: Value,
    stage: Value,
    token: Value,
    lease: Value,
    version: Value,
    job_hash: Value,
    pause: Value,
    absent: Value,
    oldest: Value,
    older_pause: Value,
    older_problem: Value,
) -> Any: ...


@script
def claim(
    *,
    clock: Key,
    queue: Key,
    ticked: Key,
    other_queues: Keys,
    most: Value,
    lease: Value,
    hash_prefix: Value,
    window: Value,
    pause: Value,
    lower: Value,
    least_lower: Value,
    stages: Values,
) -> Any: ...


@script
def keep(*, entity: Key, clock: Key, census: Key, member: Value, token: Value, lease: Value, fields: Values) -> Any: ...


@script
def put_back(*, entity: Key, clock: Key, other_clocks: Keys, member: Value, stage: Value) -> Any: ...
