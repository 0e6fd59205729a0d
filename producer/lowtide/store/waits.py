"""The reasons why batches wait before their requests can be sent: slots, tokens, a quota of the provider, a budget, or
other small batches that may share their jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import redis

from lowtide.models import JobStatus, Waiting
from lowtide.protocol import SHARES_PER_PRIORITY, BatchRecord, Quota, Stage, keys, read_quota, tenant_digest
from lowtide.redaction import redacted
from lowtide.states import Awaited, BatchState
from lowtide.store.key_types import is_wrong
from lowtide.text import counted

_TURNS = 10**10
"""Scores of a line for one priority: the seconds of a batch's creation are below it."""
_PLACE_CALLS = 7
_OF_TOKENS = Awaited.TOKENS, Awaited.QUOTA


def waits(client: redis.Redis, batches: Sequence[tuple[BatchRecord, Sequence[JobStatus]]]) -> list[Waiting | None]:
    """For each batch with these jobs, what they wait for; None where none waits. Ten calls for each that waits."""
    waiting = [[job for job in jobs if job.awaits and batch.finished is None] for batch, jobs in batches]
    with client.pipeline(transaction=False) as pipe:
        for (batch, _), jobs in zip(batches, waiting, strict=True):
            if jobs:
                _ask_for_place(pipe, batch, _first(jobs))
                pipe.hvals(keys.live_tokens(batch.provider, batch.model))
                pipe.get(keys.quota(batch.provider, batch.model))
                pipe.zcard(keys.live(batch.provider))
            elif _is_joined(batch):
                pipe.zscore(keys.clock(Stage.SUBMIT.queue), keys.batch_member(batch.bundle or ""))
        replies = iter(pipe.execute(raise_on_error=False))
    found: list[Waiting | None] = []
    for (batch, _), jobs in zip(batches, waiting, strict=True):
        if jobs:
            place = [*islice(replies, _PLACE_CALLS)]
            found.append(_waiting(batch, jobs, place, next(replies), next(replies), next(replies)))
        else:
            found.append(_for_others(batch, next(replies)) if _is_joined(batch) else None)
    return found


def _is_joined(batch: BatchRecord) -> bool:
    """Whether a batch is in a bundle that is open for more batches. It has no jobs yet."""
    return batch.lingers_until is not None and batch.state is BatchState.PENDING


def _for_others(batch: BatchRecord, due: Any) -> Waiting:
    """The waiting of a batch whose bundle is open: until it has lingered, or until jobs before it have their turn."""
    lingers = (batch.lingers_until or 0) > time.time()
    before = "" if lingers else "jobs whose turn comes first wait at the provider; until then "
    return Waiting(
        why=Awaited.OTHERS,
        reason=f"{before}other small batches may join it, to share its jobs",
        requests=batch.total,
        tokens=batch.tokens,
        next_try_at=due if isinstance(due, float) else None,
    )


def _ask_for_place(pipe: Any, batch: BatchRecord, job: JobStatus) -> None:
    """Adds the calls whose replies `_place` reads. Each costs a time that grows with the logarithm of the line."""
    line, strands = (name(batch.provider, batch.model) for name in (keys.waiting, keys.strands))
    strand = keys.strand_name(batch.priority, batch.tenant or tenant_digest(batch.labels))
    first, behind = -batch.priority * _TURNS, (1 - batch.priority) * _TURNS
    first_share, most_share = (number * SHARES_PER_PRIORITY for number in (-batch.priority, 1 - batch.priority))
    pipe.zrank(line, job.id)
    pipe.zcount(line, "-inf", f"({first}")
    pipe.zcount(line, first, f"({behind}")
    pipe.zrank(keys.strand(batch.provider, strand, batch.model), job.id)
    pipe.zrank(strands, strand)
    pipe.zcount(strands, "-inf", f"({first_share}")
    pipe.zcount(strands, first_share, f"({most_share}")


def _place(replies: Sequence[Any]) -> int | None:
    """The place of a job in the line of its model, from 1: an estimate where jobs of several tenants wait.

    It has before it all jobs of a higher priority, and from each tenant as many of its priority as from its own, as if
    all jobs were of equal size and no tenant ran out of them.
    """
    by_age, higher, equal, older, strand, higher_strands, strands = replies
    if not isinstance(by_age, int):
        return None
    if not all(isinstance(one, int) for one in (higher, equal, older, strand, higher_strands, strands)):
        # A worker of an earlier version has put it there.
        return by_age + 1
    return int(higher + max(1, min(equal, older * strands + strand - higher_strands + 1)))


def _live_jobs(slots: Any) -> str:
    return f": {counted(slots, 'job is', 'jobs are')} live" if isinstance(slots, int) and slots else ""


def _beside(batch: BatchRecord, refused: JobStatus, live_tokens: int) -> str:
    """The quota of which a refused job may lack: the provider does not say which."""
    if live_tokens:
        return f"the live jobs of {batch.model} have {live_tokens:,} tokens"
    if refused.requests + refused.others == 1 and refused.estimated_tokens:
        return (
            f"no job of {batch.model} is live, and this one is a single request of {refused.estimated_tokens:,} "
            "tokens, which may be more than the quota"
        )
    return f"no job of {batch.model} is live"


def _first(jobs: Sequence[JobStatus]) -> JobStatus:
    """The first of a batch's jobs in the line; else the first that was refused."""
    return min(jobs, key=lambda job: (job.awaits is Awaited.QUOTA, job.id))


def _waiting(
    batch: BatchRecord, jobs: Sequence[JobStatus], place: Sequence[Any], live: Any, stored: Any, slots: Any
) -> Waiting:
    first = _first(jobs)
    why = first.awaits or Awaited.SLOT
    quota = read_quota(stored) if isinstance(stored, bytes) else Quota()
    lives = sum(int(tokens) for tokens in live if tokens.isdigit()) if isinstance(live, list) else 0
    reasons = {
        Awaited.SLOT: f"all slots for live jobs at {batch.provider} are taken{_live_jobs(slots)}",
        Awaited.TOKENS: f"the live jobs of {batch.model} have {lives:,} of {quota.limit or 0:,} tokens",
        Awaited.QUOTA: f"{first.problem or 'a quota of the provider is used up'}; {_beside(batch, first, lives)}",
        Awaited.BUDGET: f"{first.shortage or first.problem or 'a budget is used up'}",
    }
    wrong = [
        key
        for key, reply in {
            keys.waiting(batch.provider, batch.model): place[0],
            keys.strands(batch.provider, batch.model): place[-1],
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
        live_tokens=lives if why in _OF_TOKENS else None,
        limit=quota.limit if why in _OF_TOKENS else None,
        budget=first.shortage,
        position=_place(place),
        next_try_at=min(tries, default=None),
    )
