"""Batches with thousands of jobs, written as the workers write them, without the work."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import redis

from lowtide.protocol import Stage, job_id, keys, written_fields
from lowtide.protocol.changes import new_job
from lowtide.states import Awaited, JobState

REQUESTS = 10
"""The requests of each job. Half of them are done at the provider where the job is there."""


def add_jobs(client: redis.Redis, batch_id: str, states: Mapping[JobState, int]) -> None:
    """Gives a batch jobs of these states, in this order, in place of its own. They are not on the clock."""
    now = time.time()
    each = [state for state, count in states.items() for _ in range(count)]
    with client.pipeline(transaction=False) as pipe:
        for number, state in enumerate(each, start=1):
            job: dict[str, Any] = {
                **new_job(batch_id, stage=Stage.CREATE),
                "id": job_id(batch_id, number),
                "number": number,
                "state": state,
                "first": (number - 1) * REQUESTS,
                "last": number * REQUESTS,
                "requests": REQUESTS,
                "tokens": 1000,
            }
            if state is JobState.PLANNED:
                job |= {"awaits": Awaited.SLOT}
            else:
                job |= {"name": f"batches/{number}", "created": now - 60, "done_requests": REQUESTS // 2}
            if state.terminal:
                job |= {"ended": now - 30}
            pipe.hset(keys.job(job["id"]), items=written_fields(job))
        numbers = {"jobs": len(each), "total": len(each) * REQUESTS, "tokens": len(each) * 1000}
        pipe.hset(keys.batch(batch_id), items=written_fields(numbers))
        pipe.execute()
