"""Admission: how many jobs may live at the provider at once, and which job is next.

The slots are the live jobs themselves: a sorted set with one member per job between create and its end. So a crash
cannot leak a slot: the job is still on the clock, and gives its slot back when it ends. Jobs without a slot wait in
order of priority, then age. A used-up quota (429) lowers the limit for a while; each success raises it again.
"""

from __future__ import annotations

from typing import cast

import redis

from lowtide.protocol import Stage, keys, measures
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import scripts
from lowtide_worker.state.held import HeldJob, Superseded

_LARGEST_SECONDS = 3600
"""How long a lowered size of jobs lasts."""


class Admission:
    """Redis scripts around the live and the waiting jobs of each provider."""

    def __init__(self, client: redis.Redis, settings: WorkerSettings) -> None:
        self._redis = client
        self._limit = settings.max_active_jobs
        self._lowered_ms = int(settings.quota_max_seconds * 1000)
        self._admit = scripts.admit.load(client)
        self._release = scripts.release.load(client)

    def admit(self, job: HeldJob) -> bool:
        """Whether the job has a slot now; if not, it is woken when its turn comes. Raises `Superseded`."""
        provider = job.batch.provider
        answer = self._admit(
            job=keys.entity(job.member),
            live=keys.live(provider),
            waiting=keys.waiting(provider),
            limit=keys.limit(provider),
            token=job.token,
            job_id=job.record.id,
            most=self._limit,
            priority=job.batch.priority,
            created=job.batch.created,
        )
        if answer < 0:
            raise Superseded(job.member)
        return bool(answer)

    def release(self, job: HeldJob) -> None:
        """Gives the job's slot to the next. Harmless for a job without one. Raises `Superseded`."""
        self._change(job, "")

    def throttled(self, job: HeldJob) -> None:
        """Gives the slot back and lowers the limit below what is live now. Raises `Superseded`."""
        self._change(job, "lower")

    def succeeded(self, job: HeldJob) -> None:
        """The provider took a job: a lowered limit goes up by one. Raises `Superseded`."""
        self._change(job, "raise")

    def too_large(self, job: HeldJob, tokens: int) -> None:
        """Halves the most tokens of one job, where this one was refused although no other job of its model is live.

        Otherwise it could never be created, and with it no other job of its size.
        """
        if tokens > 1 and not self._has_company(job):
            self._redis.set(keys.largest(job.batch.provider, job.batch.model), tokens // 2, ex=_LARGEST_SECONDS)

    def _has_company(self, job: HeldJob) -> bool:
        """Whether another job of the same model is live: a quota is a model's."""
        live = cast("list[bytes]", self._redis.zrange(keys.live(job.batch.provider), 0, -1))
        with self._redis.pipeline(transaction=False) as pipe:
            for name in live:
                if name != job.record.id.encode():
                    pipe.hget(keys.job(name.decode()), "counted")
            counted = pipe.execute(raise_on_error=False)
        # A name in the census ends with the provider and the model.
        ours = measures.counted_job(job.batch.provider, job.batch.model).split("|")[2:]
        return any(isinstance(name, bytes) and name.decode().split("|")[2:] == ours for name in counted)

    def largest(self, job: HeldJob) -> int | None:
        """The most estimated tokens of one job of this job's model; None while no job was refused for its size."""
        found = cast("bytes | None", self._redis.get(keys.largest(job.batch.provider, job.batch.model)))
        return int(found) if found is not None else None

    def large_enough(self, job: HeldJob, tokens: int) -> None:
        """Raises the most tokens of one job by a quarter, after the provider took one of nearly that size."""
        largest = self.largest(job)
        if largest is not None and 2 * tokens > largest:
            name = keys.largest(job.batch.provider, job.batch.model)
            self._redis.set(name, largest + largest // 4 + 1, xx=True, keepttl=True)

    def _change(self, job: HeldJob, change: str) -> None:
        provider = job.batch.provider
        woken = self._release(
            job=keys.entity(job.member),
            live=keys.live(provider),
            waiting=keys.waiting(provider),
            limit=keys.limit(provider),
            clock=keys.clock(Stage.CREATE.queue),
            token=job.token,
            job_id=job.record.id,
            most=self._limit,
            job_hash=keys.job(""),
            job_member=keys.job_member(""),
            change=change,
            lowered_ms=self._lowered_ms,
        )
        if woken < 0:
            raise Superseded(job.member)
