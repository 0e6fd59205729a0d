"""Admission: how many jobs, and how many tokens of a model, may live at the provider at once, and which job is next.

The slots are the live jobs themselves: a sorted set with one member per job between create and its end. The live tokens
of a model are a hash with one field for each of these jobs. So a crash cannot leak either: the job is still on the
clock, and gives back both when it ends. Other jobs wait in the line of their model, in order of priority, then age.

A limit of tokens is configured, or learned from refusals (429): see `turns.lua`, `refused.lua` and `accepted.lua`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import redis

from lowtide.protocol import Stage, keys
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import scripts
from lowtide_worker.state.held import HeldJob, Superseded


class JobTokens(NamedTuple):
    """The estimated input tokens of a job."""

    all: int
    least: int
    """Those that it has at least, however it is divided."""


class Admission:
    """Redis scripts around the live and the waiting jobs of each provider."""

    def __init__(self, client: redis.Redis, settings: WorkerSettings) -> None:
        self._settings = settings
        self._admit = scripts.admit.load(client)
        self._release = scripts.release.load(client)
        self._refused = scripts.refused.load(client)
        self._accepted = scripts.accepted.load(client)

    def admit(self, job: HeldJob, size: JobTokens) -> int:
        """Gives the job a slot and tokens; returns how many of its estimated tokens it may have now.

        They are fewer than it has where it must be divided first. 0 if it must wait: it is woken when its turn comes.
        Raises `Superseded`.
        """
        granted = self._admit(
            job=keys.entity(job.member),
            live=keys.live(job.batch.provider),
            limit=keys.limit(job.batch.provider),
            models=keys.models(job.batch.provider),
            token=job.token,
            job_id=job.record.id,
            most=self._settings.max_active_jobs,
            priority=job.batch.priority,
            created=job.batch.created,
            model=keys.quota_name(job.batch.model),
            configured=self._settings.max_tokens(job.batch.model) or "",
            tokens=size.all,
            least=size.least,
            job_hash=keys.job(""),
            waiting_prefix=keys.waiting(job.batch.provider, ""),
            tokens_prefix=keys.live_tokens(job.batch.provider, ""),
            quota_prefix=keys.quota(job.batch.provider, ""),
        )
        if granted < 0:
            raise Superseded(job.member)
        return int(granted)

    def release(self, job: HeldJob) -> None:
        """Gives the job's slot and tokens to the next. Harmless for a job without them. Raises `Superseded`."""
        _check(job, self._release(**self._common(job)))

    def throttled(self, job: HeldJob) -> None:
        """Gives back slot and tokens of a job that a quota kept out, and lowers a limit. Raises `Superseded`."""
        # A first refusal may have another reason than the size of the job, such as many calls in a minute.
        often = int(job.record.throttled >= _PASSING_REFUSALS)
        lowered_ms = int(self._settings.quota_max_seconds * 1000)
        _check(job, self._refused(**self._common(job), often=often, lowered_ms=lowered_ms))

    def succeeded(self, job: HeldJob) -> None:
        """Raises what was lowered, after the provider took a job. Raises `Superseded`."""
        _check(job, self._accepted(**self._common(job), patience=self._settings.quota_max_seconds))

    def _common(self, job: HeldJob) -> dict[str, Any]:
        provider = job.batch.provider
        return {
            "job": keys.entity(job.member),
            "live": keys.live(provider),
            "limit": keys.limit(provider),
            "models": keys.models(provider),
            "clock": keys.clock(Stage.CREATE.queue),
            "token": job.token,
            "job_id": job.record.id,
            "most": self._settings.max_active_jobs,
            "model": keys.quota_name(job.batch.model),
            "job_hash": keys.job(""),
            "job_member": keys.job_member(""),
            "waiting_prefix": keys.waiting(provider, ""),
            "tokens_prefix": keys.live_tokens(provider, ""),
            "quota_prefix": keys.quota(provider, ""),
        }


_PASSING_REFUSALS = 2


def _check(job: HeldJob, woken: int) -> None:
    if woken < 0:
        raise Superseded(job.member)
