"""The removal of a batch from Redis. Its id is kept for as long as a late file of it may appear."""

from __future__ import annotations

from collections.abc import Callable

import redis

from lowtide.addresses import claim_of
from lowtide.protocol import Stage, job_id, keys
from lowtide.store import redis_time
from lowtide_worker.state import scripts
from lowtide_worker.state.held import HeldBatch, Superseded

_KEPT_SECONDS = 30 * 86_400.0
_AT_ONCE = 500


class DeletedBatches:
    """Scripts that remove a batch, and a sorted set of ids by the time of their deletion."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._forget_job = scripts.forget_job.load(client)
        self._forget = scripts.forget.load(client)

    def note(self, batch_id: str) -> None:
        """Notes that a batch is deleted."""
        now = redis_time(self._redis)
        with self._redis.pipeline() as pipe:
            pipe.zadd(keys.DELETED, {batch_id: now})
            pipe.zremrangebyscore(keys.DELETED, "-inf", now - _KEPT_SECONDS)
            pipe.execute()

    def has(self, batch_id: str) -> bool:
        """Whether a batch of this id was deleted."""
        return self._redis.zscore(keys.DELETED, batch_id) is not None

    def forget(self, batch: HeldBatch, check: Callable[[], None]) -> None:
        """Removes every key of a batch. Calls `check` before each pipeline. Raises `Superseded`.

        It works job by job, in pipelines: one script would hold up Redis for seconds where there are many segments.
        """
        batch_id, handler, jobs = batch.batch_id, batch.record.on_result or "", batch.record.jobs
        for first in range(1, jobs + 1, _AT_ONCE):
            check()
            numbers = range(first, min(first + _AT_ONCE, jobs + 1))
            with self._redis.pipeline(transaction=False) as pipe:
                for name in (job_id(batch_id, number) for number in numbers):
                    self._forget_job.within(pipe)(
                        batch=keys.entity(batch.member),
                        job=keys.job(name),
                        carried=keys.carried(name),
                        result_index=keys.result_index(name),
                        clock=keys.clock(Stage.CLEAN.queue),
                        segments_clock=keys.clock(Stage.DELIVER.queue),
                        parked=keys.PARKED,
                        in_hand=keys.in_hand(handler),
                        queued=keys.queued(handler),
                        census=keys.CENSUS,
                        counted_rows=keys.counted(name),
                        known_strangers=keys.strangers(name),
                        token=batch.token,
                        job_member=keys.job_member(name),
                        segment_member=keys.segment_member(name, ""),
                        hash_prefix=keys.PREFIX,
                    )
                _check(all(pipe.execute()), batch)
        forgotten = self._forget(
            batch=keys.entity(batch.member),
            settled=keys.settled(batch_id),
            batches=keys.BATCHES if batch.record.gathers is None else keys.GATHERED,
            clock=keys.clock(Stage.DELETE.queue),
            idempotency=keys.idempotency(batch.record.idempotency_key or ""),
            destination=keys.destination(claim_of(batch.record.destination)),
            census=keys.CENSUS,
            bundled=keys.bundled(batch_id),
            requests=keys.requests(batch_id),
            batch_id=batch_id,
            member=batch.member,
            token=batch.token,
            batch_prefix=keys.batch(""),
            batch_member=keys.batch_member(""),
        )
        _check(forgotten, batch)


def _check(held_still: int, batch: HeldBatch) -> None:
    if not held_still:
        raise Superseded(batch.member)
