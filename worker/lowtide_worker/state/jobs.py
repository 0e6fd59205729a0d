"""Reads of all jobs of a batch."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import cast

import redis

from lowtide.protocol import job_id, keys

_AT_ONCE = 500


def segments_of_jobs(client: redis.Redis, batch_id: str) -> dict[int, tuple[int, set[int]]]:
    """Returns by the number of each job of a batch: how many segments it has had, and which of them were given up."""
    jobs = int(cast("bytes | None", client.hget(keys.batch(batch_id), "jobs")) or 0)
    numbers = iter(range(1, jobs + 1))
    found: dict[int, tuple[int, set[int]]] = {}
    while some := list(islice(numbers, _AT_ONCE)):
        with client.pipeline(transaction=False) as pipe:
            for number in some:
                pipe.hmget(keys.job(job_id(batch_id, number)), "segments", "dropped")
            for number, (count, dropped) in zip(some, pipe.execute(), strict=True):
                found[number] = int(count or 0), {int(given_up) for given_up in (dropped or b"").split()}
    return found


def unknown_jobs(client: redis.Redis, batch_id: str, numbers: Iterable[int]) -> list[int]:
    """Returns those of these numbers that no job of the batch has in Redis."""
    found, each = [], iter(numbers)
    while some := list(islice(each, _AT_ONCE)):
        with client.pipeline(transaction=False) as pipe:
            for number in some:
                pipe.exists(keys.job(job_id(batch_id, number)))
            found += [number for number, known in zip(some, pipe.execute(), strict=True) if not known]
    return found
