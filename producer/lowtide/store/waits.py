"""The reasons why batches wait before their requests can be sent: slots, tokens, a quota of the provider, or a
budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from lowtide.models import JobStatus, Waiting
from lowtide.protocol import BatchRecord, Quota, keys, read_quota
from lowtide.redaction import redacted
from lowtide.states import Awaited
from lowtide.store.key_types import is_wrong


def waits(client: redis.Redis, batches: Sequence[tuple[BatchRecord, Sequence[JobStatus]]]) -> list[Waiting | None]:
    """For each batch with these jobs, what they wait for; None where none waits. Three calls for each that waits."""
    waiting = [[job for job in jobs if job.awaits and batch.finished is None] for batch, jobs in batches]
    with client.pipeline(transaction=False) as pipe:
        for (batch, _), jobs in zip(batches, waiting, strict=True):
            if jobs:
                pipe.zrank(keys.waiting(batch.provider, batch.model), _first(jobs).id)
                pipe.hvals(keys.live_tokens(batch.provider, batch.model))
                pipe.get(keys.quota(batch.provider, batch.model))
                pipe.zcard(keys.live(batch.provider))
        replies = iter(pipe.execute(raise_on_error=False))
    return [
        _waiting(batch, jobs, next(replies), next(replies), next(replies), next(replies)) if jobs else None
        for (batch, _), jobs in zip(batches, waiting, strict=True)
    ]


def _first(jobs: Sequence[JobStatus]) -> JobStatus:
    """The first of a batch's jobs in the line; else the first that was refused."""
    return min(jobs, key=lambda job: (job.awaits is Awaited.QUOTA, job.id))


def _waiting(batch: BatchRecord, jobs: Sequence[JobStatus], rank: Any, live: Any, stored: Any, slots: Any) -> Waiting:
    first = _first(jobs)
    why = first.awaits or Awaited.SLOT
    quota = read_quota(stored) if isinstance(stored, bytes) else Quota()
    lives = sum(int(tokens) for tokens in live if tokens.isdigit()) if isinstance(live, list) else 0
    reasons = {
        Awaited.SLOT: f"all slots for live jobs at {batch.provider} are taken",
        Awaited.TOKENS: f"the live jobs of {batch.model} have {lives:,} of {quota.limit or 0:,} tokens",
        Awaited.QUOTA: first.problem or "the provider's quota is used up",
        Awaited.BUDGET: f"{first.shortage or first.problem or 'a budget is used up'}",
    }
    wrong = [
        key
        for key, reply in {
            keys.waiting(batch.provider, batch.model): rank,
            keys.live_tokens(batch.provider, batch.model): live,
            keys.quota(batch.provider, batch.model): stored,
            keys.live(batch.provider): slots,
        }.items()
        if is_wrong(reply)
    ]
    reason = f"another program has written to {' and '.join(wrong)} in Redis" if wrong else reasons[why]
    left = batch.total - batch.succeeded - batch.failed - batch.expired - batch.cancelled
    tries = [job.next_at for job in jobs if job.next_at is not None]
    return Waiting(
        why=why,
        reason=redacted(reason),
        # Jobs of a bundle have requests of other batches too.
        requests=min(left, sum(job.requests for job in jobs)),
        tokens=min(batch.tokens, sum(job.estimated_tokens or 0 for job in jobs)),
        live_tokens=lives if why is Awaited.TOKENS else None,
        limit=quota.limit if why is Awaited.TOKENS else None,
        budget=first.shortage,
        position=rank + 1 if isinstance(rank, int) else None,
        next_try_at=min(tries, default=None),
    )
