"""A desk at which the jobs of tests ask for money: admission, and the ends of jobs."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tests.records import a_batch, a_job, hash_of, held_job
from tests.stack import Stack

from lowtide.protocol import JobRecord, Stage, job_id, keys, read_record
from lowtide_worker.state import (
    Admission,
    HeldJob,
    JobTokens,
    Ledger,
)

MODEL = "gemini-3.5-flash"
INPUT = 750
"""Nano-dollars of an input token of the model."""
TEAM = {"team": "catalog"}
NOON = datetime(2026, 11, 10, 12, tzinfo=UTC).timestamp()


def at(seconds: float, job: HeldJob) -> HeldJob:
    """The job in the hands of a worker at this time, by Redis's clock."""
    return replace(job, begun=seconds)


class Desk:
    """Admission and the ends of jobs. A job of 100 tokens costs 75,000 nano-dollars by the estimate."""

    def __init__(self, stack: Stack, *, slots: int = 10, budgets: dict[str, dict[str, str]] | None = None) -> None:
        stack.empty_redis()
        self.stack = stack
        settings = stack.worker_settings(max_active_jobs=slots, budgets=budgets or {})
        self.door, self.ledger = Admission(stack.redis, settings), Ledger(stack.redis, settings)

    def job(self, name: str, number: int = 1, **options: Any) -> HeldJob:
        batch = a_batch(name, **{"total": 1000, "tokens": 1000, "output_tokens": 0, "open": 1000} | options)
        record = a_job(job_id(name, number), token=1, stage=Stage.CREATE, last=100, requests=100)
        held = at(NOON, held_job(record, batch, Stage.CREATE))
        if not self.stack.redis.exists(keys.batch(name)):
            self.stack.redis.hset(keys.batch(name), mapping=hash_of(batch))
        self.stack.redis.hset(keys.entity(held.member), mapping=hash_of(record))
        self.stack.redis.zadd(keys.clock(Stage.CREATE.queue), {held.member: time.time() + 3600})
        return held

    def admit(self, job: HeldJob, tokens: int = 100, least: int = 1) -> int:
        """Returns how many tokens of the job may be sent now, of `tokens` that cost as much as input."""
        granted = self.door.admit(job, JobTokens(tokens, least), self.door.budgets(job))
        return granted.tokens if granted.cost is None else min(granted.tokens, granted.cost // INPUT)

    def pays(self, job: HeldJob, cost: int, rows: int = 1) -> None:
        """Counts rows of a job, as record.lua does. A request has one token by the estimate."""
        client, today = self.stack.redis, datetime.fromtimestamp(job.now(), UTC).date()
        for name in (keys.entity(job.member), keys.batch(job.batch_id)):
            client.hincrby(name, "paid_cost", cost)
            client.hincrby(name, "priced_rows", rows)
        for label, value in job.batch.labels.items():
            client.hincrby(keys.costs(today), f"label|{label}={value}|cost", cost)

    def closes(self, job: HeldJob) -> None:
        self.ledger.close(job, tidy=lambda: None)

    def record(self, job: HeldJob) -> JobRecord:
        return read_record(JobRecord, self.stack.redis.hgetall(keys.entity(job.member)))  # type: ignore[arg-type]

    def is_due(self, job: HeldJob) -> bool:
        due = self.stack.redis.zscore(keys.clock(Stage.CREATE.queue), job.member)
        return due is not None and float(str(due)) <= time.time()

    def reserved(self, budget: str) -> dict[str, int]:
        found: dict[bytes, bytes] = self.stack.redis.hgetall(keys.reserved(budget))  # type: ignore[assignment]
        return {name.decode(): int(cost) for name, cost in found.items()}
