"""The ledger: which request has its result, which job carries what, and when a batch is complete.

Every change is one atomic script that first checks that the caller still holds the entity; a second run of the same
work changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, cast

import msgspec
import redis
from msgspec.structs import replace

from lowtide.addresses import claim_of
from lowtide.models import ResultError
from lowtide.protocol import (
    DAMAGED,
    RECORD_VERSION,
    Collected,
    JobRecord,
    Stage,
    job_id,
    job_prefix,
    keys,
    measures,
    read_record,
    salvage_record,
    written_fields,
)
from lowtide.protocol.changes import JobChange, new_job
from lowtide.spool import KEPT_ENTRIES
from lowtide.states import BatchState
from lowtide.store import pairs
from lowtide_worker.events import Event
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import scripts
from lowtide_worker.state.bundles import Share
from lowtide_worker.state.grants import Granted, SegmentRows
from lowtide_worker.state.held import Held, HeldBatch, HeldJob, HeldSegment, Superseded, bounded
from lowtide_worker.state.ordinals import Ordinals, missing
from lowtide_worker.state.retries import OutdatedError, Retry, Unstored, kept_by, new_jobs, pool_limits, retry_counts
from lowtide_worker.state.tally import Tally

log = logging.getLogger(__name__)

_WATCH_SECONDS = 600.0
"""How often a job that waits for its segments is checked, in case that its last segment did not wake it."""
_AT_ONCE = 500
_RUNNING = frozenset({BatchState.PENDING, BatchState.RUNNING, BatchState.CANCELLING})
_encode = msgspec.json.encode


class UnbalancedError(RuntimeError):
    """The last job of a batch is settled, and the counts of its results do not add up."""


class Ledger:
    """Redis scripts around jobs, segments and the bitmap of settled requests."""

    def __init__(self, client: redis.Redis, settings: WorkerSettings) -> None:
        self._redis = client
        self._settings = settings
        self._draft = scripts.draft.load(client)
        self._plan = scripts.plan.load(client)
        self._segment = scripts.segment.load(client)
        self._grant = scripts.grant.load(client)
        self._record = scripts.record.load(client)
        self._recollect = scripts.recollect.load(client)
        self._divide = scripts.divide.load(client)
        self._close = scripts.close.load(client)
        self._lose = scripts.lose.load(client)

    def draft(self, batch: HeldBatch, first: int, jobs: Sequence[Ordinals]) -> None:
        """Records some of a batch's first jobs, numbered from `first` on. Raises `Superseded`."""
        prefix = job_prefix(batch.batch_id)
        drafted = self._draft(
            batch=keys.entity(batch.member),
            census=keys.CENSUS,
            token=batch.token,
            job_hash=keys.job(prefix),
            job_carried=keys.carried(prefix),
            job_id=prefix,
            first=first,
            counted=measures.counted_job(batch.record.provider, batch.record.model),
            shared=written_fields(new_job(batch.batch_id, stage=None)),
            jobs=[part for some in jobs for part in (some.first, some.last, len(some), some.bitmap or b"")],
        )
        self._checked(drafted, batch)

    def plan(self, batch: HeldBatch, jobs: int) -> None:
        """Makes all drafted jobs of a batch due to be created, `jobs` in number. Raises `Superseded`.

        One script for all: it takes about a microsecond a job.
        """
        prefix = job_prefix(batch.batch_id)
        planned = self._plan(
            batch=keys.entity(batch.member),
            clock=keys.clock(Stage.CREATE.queue),
            census=keys.CENSUS,
            requests=keys.requests(batch.batch_id),
            member=batch.member,
            token=batch.token,
            job_hash=keys.job(prefix),
            job_member=keys.job_member(prefix),
            job_carried=keys.carried(prefix),
            jobs=jobs,
            stage=Stage.CREATE,
        )
        self._checked(planned, batch)

    def lose(self, batch: HeldBatch, error: ResultError) -> None:
        """Ends a batch whose requests are gone; frees its idempotency key and its destination. Raises `Superseded`."""
        lost = self._lose(
            batch=keys.entity(batch.member),
            clock=keys.clock(Stage.DELETE.queue),
            idempotency=keys.idempotency(batch.record.idempotency_key or ""),
            destination=keys.destination(claim_of(batch.record.destination)),
            census=keys.CENSUS,
            counters=keys.COUNTERS,
            singles=keys.singles(batch.batch_id),
            waiting_files=keys.SINGLE_FILES,
            member=batch.member,
            batch_prefix=keys.batch(""),
            token=batch.token,
            error=_encode(bounded(error)),
            stage=Stage.DELETE,
            retention=self._settings.retention_seconds,
            counter=measures.RESULTS,
            reason=measures.short_reason(error.reason),
            waiting_name=measures.SINGLES_WAITING,
        )
        self._checked(lost, batch)

    def carried(self, job: HeldJob) -> Ordinals:
        """The requests that a job carries."""
        first, last = job.record.first, job.record.last
        if not job.record.sparse:
            return Ordinals(first=first, last=last)
        bitmap = cast("bytes | None", self._redis.get(keys.carried(job.record.id)))
        return Ordinals(first=first, last=last, bitmap=bitmap or b"")

    def result_index(self, job: HeldJob) -> bytes:
        """The places of a job's results: see `lowtide.spool.result_index`."""
        return cast("bytes | None", self._redis.get(keys.result_index(job.record.id))) or b""

    def unsettled(self, batch_id: str, ordinals: Ordinals) -> Ordinals | None:
        """Those of `ordinals` that have no result yet; None where all have one."""
        start, end = ordinals.first // 8, (ordinals.last - 1) // 8
        return missing(ordinals, cast("bytes", self._redis.getrange(keys.settled(batch_id), start, end)))

    def segment(
        self, job: HeldJob, origin: str, ends: Sequence[int], *, piece: str = "", collected: Collected | None = None
    ) -> None:
        """Puts segments of a file on the clock; with the last, the job waits for all in settle. Raises `Superseded`.

        `origin` is `output` or `rest`. `ends` are the byte offsets at which the segments end; the first begins at 0.
        `collected` is given where more segments will come: the output up to where they begin.
        """
        prefix = keys.segment_member(job.record.id, "")
        cut = self._segment(
            job=keys.entity(job.member),
            clock=keys.clock(job.stage.queue),
            segments_clock=keys.clock(Stage.DELIVER.queue),
            next_clock=keys.clock(Stage.SETTLE.queue),
            census=keys.CENSUS,
            member=job.member,
            token=job.token,
            stage=Stage.SETTLE,
            watch=_WATCH_SECONDS,
            version=RECORD_VERSION,
            batch_id=job.batch_id,
            job_id=job.record.id,
            segment_stage=Stage.DELIVER,
            origin=origin,
            segment_hash=keys.entity(prefix),
            segment_member=prefix,
            piece=piece,
            collected="" if collected is None else _encode(collected),
            spans=pairs(zip([0, *ends], ends, strict=False)),
        )
        self._checked(cut, job)

    def grant(self, segment: HeldSegment, rows: SegmentRows) -> Granted:
        """Returns which rows of a segment become results, and which are counted as paid. Raises `Superseded`."""
        final = rows.final
        in_order = bool(final) and not rows.again and list(final) == list(range(final[0], final[0] + len(final)))
        answer = self._grant(consecutive=int(in_order), **rows.arguments(segment))
        return Granted.of(segment, answer)

    def record(self, segment: HeldSegment, tally: Tally, *, handler_waits: bool) -> int:
        """Counts a stored segment; returns how many segments of its job are still to be stored. Raises `Superseded`.

        With `handler_waits` the segment stays on the clock until a handler has taken it; else it is removed.
        """
        job = segment.record.job_id
        left = self._record(
            segment=keys.entity(segment.member),
            job=keys.job(job),
            batch=keys.batch(segment.batch_id),
            clock=keys.clock(Stage.DELIVER.queue),
            job_clock=keys.clock(Stage.SETTLE.queue),
            census=keys.CENSUS,
            counters=keys.COUNTERS,
            result_index=keys.result_index(job),
            costs=keys.costs(tally.day),
            member=segment.member,
            token=segment.token,
            job_member=keys.job_member(job),
            handler_waits=int(handler_waits),
            lease=self._settings.lease_seconds,
            batch_prefix=keys.batch(""),
            batch_member=keys.batch_member(""),
            batch_stage=Stage.DELETE,
            retention=self._settings.retention_seconds,
            jobs_hash=keys.job(job_prefix(segment.batch_id)),
            jobs_member=keys.job_member(job_prefix(segment.batch_id)),
            **tally.arguments(),
        )
        if left < 0:
            raise Superseded(segment.member)
        return int(left)

    def recollect(self, segment: HeldSegment, *, from_provider: bool, shares: Sequence[Share] = ()) -> None:
        """Removes a segment whose bytes are gone, and takes back its granted requests. Raises `Superseded`.

        With `from_provider` the job collects its output again; else settle treats the requests as unanswered. `shares`
        are the batches of a bundle.
        """
        job = segment.record.job_id
        given_up = self._recollect(
            segment=keys.entity(segment.member),
            job=keys.job(job),
            settled=keys.settled(segment.batch_id),
            clock=keys.clock(Stage.DELIVER.queue),
            job_clock=keys.clock(Stage.SETTLE.queue),
            census=keys.CENSUS,
            counted_rows=keys.counted(job),
            known_strangers=keys.strangers(job),
            member=segment.member,
            token=segment.token,
            job_member=keys.job_member(job),
            stage=Stage.COLLECT if from_provider else "",
            first=segment.job.first,
            settled_prefix=keys.settled(""),
            shares=[part for one in shares for part in one],
        )
        self._checked(given_up, segment)

    def close(
        self,
        job: HeldJob,
        *,
        tidy: Callable[[], None],
        retries: Sequence[Retry] = (),
        beyond: int = 0,
        unstored: Unstored | None = None,
    ) -> BatchState | None:
        """Closes a job, handing its other requests on to new ones; returns the batch's state if that ended it.

        Calls `tidy` right before the batch ends. `unstored` are requests that end without results. Numbers of new jobs
        are above `beyond`, the highest number of a job that Redis has forgotten. Raises `Superseded`, `OutdatedError`.
        """
        batch_id = job.batch_id
        prefix = job_prefix(batch_id)
        error = unstored.error if unstored else job.record.error

        def ask(*, is_tidy: bool) -> Any:
            return self._close(
                job=keys.entity(job.member),
                batch=keys.batch(batch_id),
                clock=keys.clock(Stage.SETTLE.queue),
                carried=keys.carried(prefix),
                census=keys.CENSUS,
                counters=keys.COUNTERS,
                quota=keys.quota(job.batch.provider, job.batch.model),
                result_index=keys.result_index(job.record.id),
                counted_rows=keys.counted(job.record.id),
                known_strangers=keys.strangers(job.record.id),
                member=job.member,
                token=job.token,
                stage=Stage.CLEAN,
                batch_member=keys.batch_member(batch_id),
                batch_stage=Stage.DELETE,
                retention=self._settings.retention_seconds,
                job_hash=keys.job(prefix),
                job_member=keys.job_member(prefix),
                job_id=prefix,
                error=_encode(bounded(error)) if error else "",
                tidy=int(is_tidy),
                counted=measures.counted_job(job.batch.provider, job.batch.model),
                index_moved=int(job.record.last - job.record.first > KEPT_ENTRIES),
                entity_prefix=keys.entity(""),
                reserved_prefix=keys.reserved(""),
                waiting_for_prefix=keys.waiting_for(""),
                estimated=(job.record.tokens or 0) * job.record.paid_rows / job.record.requests,
                reported=job.record.paid_prompt_token_count,
                ended=unstored.status if unstored else "",
                unstored=unstored.requests if unstored else 0,
                **pool_limits(self._settings, job.batch),
                numbers=_encode([beyond, *(retry.number for retry in retries)]),
                totals=[*retry_counts(job, retries), *(unstored.totals() if unstored else ())],
                jobs=new_jobs(batch_id, retries),
            )

        closed, state = ask(is_tidy=False)
        if state == b"untidy":
            tidy()
            closed, state = ask(is_tidy=True)
        self._checked(closed, job)
        if state == b"outdated":
            raise OutdatedError(job.record.id)
        if state == b"unbalanced":
            raise UnbalancedError(f"batch {batch_id}: the last job is settled but the counts do not add up")
        return BatchState(state.decode()) if state else None

    def divide(self, job: HeldJob, kept: Ordinals, rest: Ordinals, *, number: int = 0, beyond: int = 0) -> None:
        """Leaves a job that is not created yet some of its requests; a new one gets `rest`. Raises `Superseded`.

        `number`, `beyond`: see `close`; the number is that of the new job.
        """
        prefix = job_prefix(job.batch_id)
        # Should the rest never be created either, its requests expire with this reason.
        reason: JobChange = {"error": job.record.error}
        divided = self._divide(
            job=keys.entity(job.member),
            batch=keys.batch(job.batch_id),
            clock=keys.clock(Stage.CREATE.queue),
            carried=keys.carried(prefix),
            census=keys.CENSUS,
            token=job.token,
            job_hash=keys.job(prefix),
            job_member=keys.job_member(prefix),
            counted=measures.counted_job(job.batch.provider, job.batch.model),
            kept_bitmap=kept.bitmap or "",
            bitmap=rest.bitmap or "",
            numbers=_encode([beyond, number]),
            kept=kept_by(kept),
            fields=[*Retry.of(job.record, rest).fields(job.batch_id), *written_fields(reason)],
        )
        self._checked(divided, job)

    def job(self, job: str) -> JobRecord | None:
        """The record of a job; None where there is none. Raises `DamagedRecord`."""
        found = cast("dict[bytes, bytes]", self._redis.hgetall(keys.job(job)))
        return read_record(JobRecord, found) if found else None

    def sees_jobs(self, job: HeldJob, *, before: float, after: float) -> bool:
        """Whether the provider showed another job of ours after `after` that was created before `before`.

        Checks the jobs that live at the provider and those of the same batch. Both times are in Unix seconds.
        """
        live = cast("list[bytes]", self._redis.zrange(keys.live(job.batch.provider), 0, -1))
        others = {name.decode() for name in live}
        others |= {job_id(job.batch_id, number) for number in range(1, job.batch.jobs + 1)}
        names = iter(others - {job.record.id})
        while some := list(islice(names, _AT_ONCE)):
            with self._redis.pipeline(transaction=False) as pipe:
                for name in some:
                    pipe.hmget(keys.job(name), "created", "seen")
                for created, seen in pipe.execute():
                    if created and seen and float(created) <= before and float(seen) >= after:
                        return True
        return False

    def jobs(self, batch: HeldBatch) -> Iterator[JobRecord]:
        """The record of each job of a batch that is to be deleted. One that is damaged has what can be read of it."""
        for number in range(1, batch.record.jobs + 1):
            name = job_id(batch.batch_id, number)
            if not (found := cast("dict[bytes, bytes]", self._redis.hgetall(keys.job(name)))):
                continue
            try:
                yield read_record(JobRecord, found)
            except DAMAGED as damage:
                log.warning("job %s: its record is damaged: %s", name, damage, extra=Event.RECORD_DAMAGED.extra)
                yield replace(salvage_record(JobRecord, found), id=name)

    def runs(self, batch_id: str) -> bool:
        """Whether a batch has requests without a result."""
        state = cast("bytes | None", self._redis.hget(keys.batch(batch_id), "state"))
        return state is not None and state.decode(errors="replace") in _RUNNING

    def knows(self, member: str) -> bool:
        """Whether there is such a batch, job or segment."""
        return bool(self._redis.exists(keys.entity(member)))

    @staticmethod
    def _checked(held_still: int, held: Held[Any]) -> None:
        if not held_still:
            raise Superseded(held.member)
