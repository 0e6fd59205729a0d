"""The ledger: which request has its result, which job carries what, and when a batch is complete.

Every change is one atomic script that first checks that the caller still holds the entity; a second run of the same
work changes nothing.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import msgspec
import redis
from msgspec.structs import replace

from lowtide.models import ResultError
from lowtide.protocol import (
    DAMAGED,
    VERSION,
    JobRecord,
    Stage,
    job_id,
    job_prefix,
    keys,
    read_record,
    salvage_record,
    written_fields,
)
from lowtide.protocol.changes import CarriedRequests, NewJob
from lowtide.states import BatchState, JobState
from lowtide.store import free_place, load_script, redis_time
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state.held import Held, HeldBatch, HeldJob, HeldSegment, Superseded
from lowtide_worker.state.ordinals import Ordinals, missing

log = logging.getLogger(__name__)

_WATCH_SECONDS = 600.0
"""How often a job that waits for its segments is looked at, should its last segment never say so."""
_DELETED_NOTED_SECONDS = 30 * 86_400.0
"""How long it is remembered that a batch was deleted."""
_AT_ONCE = 500
_RUNNING = frozenset({BatchState.PENDING, BatchState.RUNNING, BatchState.CANCELLING})
_encode = msgspec.json.encode
MAX_JOB_ERROR_CHARS = 500
"""Most characters of the error that a whole job ended with: each request that it ends gets a copy."""


class Ledger:
    """Redis scripts around jobs, segments and the bitmap of settled requests."""

    def __init__(self, client: redis.Redis, settings: WorkerSettings) -> None:
        self._redis = client
        self._settings = settings
        self._draft = load_script(client, "lowtide_worker.state", "draft")
        self._plan = load_script(client, "lowtide_worker.state", "plan")
        self._segment = load_script(client, "lowtide_worker.state", "segment")
        self._grant = load_script(client, "lowtide_worker.state", "grant")
        self._record = load_script(client, "lowtide_worker.state", "record")
        self._recollect = load_script(client, "lowtide_worker.state", "recollect")
        self._offer = load_script(client, "lowtide_worker.state", "offer")
        self._free_place = load_script(client, "lowtide.store", "free_place")
        self._handed_over = load_script(client, "lowtide_worker.state", "handed_over")
        self._close = load_script(client, "lowtide_worker.state", "close")
        self._forget_job = load_script(client, "lowtide_worker.state", "forget_job")
        self._forget = load_script(client, "lowtide_worker.state", "forget")
        self._lose = load_script(client, "lowtide_worker.state", "lose")

    def draft(self, batch: HeldBatch, first: int, jobs: Sequence[Ordinals]) -> None:
        """Records some of a batch's first jobs, numbered from `first` on. Raises `Superseded`."""
        prefix = job_prefix(batch.batch_id)
        common = written_fields(_new_job(batch.batch_id, stage=None, attempt=1, losses=0))
        own = [part for some in jobs for part in (some.first, some.last, len(some), some.bitmap or b"")]
        self._checked(
            self._draft(
                keys=[keys.entity(batch.member)],
                args=[
                    batch.token,
                    keys.job(prefix),
                    keys.carried(prefix),
                    prefix,
                    first,
                    len(common) // 2,
                    *common,
                    *own,
                ],
            ),
            batch,
        )

    def plan(self, batch: HeldBatch, jobs: int) -> None:
        """Makes all drafted jobs of a batch due to be created, `jobs` in number. Raises `Superseded`.

        One script for all: it takes about a microsecond a job.
        """
        prefix = job_prefix(batch.batch_id)
        names = [keys.job(prefix), keys.job_member(prefix), keys.carried(prefix)]
        planned = self._plan(
            keys=[keys.entity(batch.member), keys.clock(Stage.CREATE.queue)],
            args=[batch.member, batch.token, *names, jobs, Stage.CREATE],
        )
        self._checked(planned, batch)

    def lose(self, batch: HeldBatch, error: ResultError) -> None:
        """Ends a batch whose requests are gone, and frees its idempotency key. Raises `Superseded`."""
        self._checked(
            self._lose(
                keys=[keys.entity(batch.member), keys.clock(Stage.DELETE.queue),
                      keys.idempotency(batch.record.idempotency_key or "")],
                args=[batch.member, batch.token, batch.batch_id, _encode(bounded(error)), Stage.DELETE,
                      self._settings.retention_seconds],
            ), batch,
        )  # fmt: skip

    def carried(self, job: HeldJob) -> Ordinals:
        """The requests that a job carries."""
        first, last = job.record.first, job.record.last
        if not job.record.sparse:
            return Ordinals(first=first, last=last)
        bitmap = cast("bytes | None", self._redis.get(keys.carried(job.record.id)))
        return Ordinals(first=first, last=last, bitmap=bitmap or b"")

    def unsettled(self, batch_id: str, ordinals: Ordinals) -> Ordinals | None:
        """Those of `ordinals` that have no result yet; None where all have one."""
        start, end = ordinals.first // 8, (ordinals.last - 1) // 8
        return missing(ordinals, cast("bytes", self._redis.getrange(keys.settled(batch_id), start, end)))

    def segment(
        self, job: HeldJob, origin: str, ends: Sequence[int], *, piece: str = "", collected: int | None = None
    ) -> None:
        """Puts segments of a file on the clock; with the last, the job waits for all in settle. Raises `Superseded`.

        `origin` is `output` or `rest`. `ends` are the byte offsets at which the segments end; the first begins at 0.
        `collected` is given where more segments will come: the bytes of output up to where they begin.
        """
        prefix = f"{job.record.id}:"
        spans = [offset for pair in zip([0, *ends], ends, strict=False) for offset in pair]
        self._checked(
            self._segment(
                keys=[keys.entity(job.member), keys.clock(job.stage.queue),
                      keys.clock(Stage.DELIVER.queue), keys.clock(Stage.SETTLE.queue)],
                args=[job.member, job.token, Stage.SETTLE, _WATCH_SECONDS, VERSION, job.batch_id,
                      job.record.id, Stage.DELIVER, origin, keys.entity(f"segment:{prefix}"),
                      f"segment:{prefix}", piece, "" if collected is None else collected, *spans],
            ), job,
        )  # fmt: skip

    def grant(self, segment: HeldSegment, ordinals: Sequence[int]) -> list[bool]:
        """Which of these requests get their result from this segment. Raises `Superseded`."""
        if not ordinals:
            return []
        consecutive = list(ordinals) == list(range(ordinals[0], ordinals[0] + len(ordinals)))
        answer = self._grant(
            keys=[keys.entity(segment.member), keys.settled(segment.batch_id), keys.batch(segment.batch_id)],
            args=[segment.token, struct.pack(f"<{len(ordinals)}I", *ordinals), int(consecutive)],
        )
        if answer is None:
            raise Superseded(segment.member)
        return [bit == 0x31 for bit in answer]

    def record(self, segment: HeldSegment, counts: Mapping[str, int], *, handler_waits: bool) -> int:
        """Counts a stored segment; returns how many of its job are left. Raises `Superseded`."""
        job = segment.record.job_id
        left = self._record(
            keys=[keys.entity(segment.member), keys.job(job), keys.batch(segment.batch_id),
                  keys.clock(Stage.DELIVER.queue), keys.clock(Stage.SETTLE.queue)],
            args=[segment.member, segment.token, keys.job_member(job), int(handler_waits),
                  self._settings.lease_seconds,
                  *(part for name, amount in counts.items() if amount for part in (name, amount))],
        )  # fmt: skip
        if left < 0:
            raise Superseded(segment.member)
        return int(left)

    def recollect(self, segment: HeldSegment, *, from_provider: bool) -> None:
        """Gives up a segment whose bytes are gone, for its job to bring them again. Raises `Superseded`."""
        job = segment.record.job_id
        self._checked(
            self._recollect(
                keys=[
                    keys.entity(segment.member),
                    keys.job(job),
                    keys.settled(segment.batch_id),
                    keys.clock(Stage.DELIVER.queue),
                    keys.clock(Stage.SETTLE.queue),
                ],
                args=[segment.member, segment.token, keys.job_member(job), Stage.COLLECT if from_provider else ""],
            ),
            segment,
        )

    def offer(self, segment: HeldSegment, *, patience: float) -> bool:
        """Whether the handler may be given a segment now; if not, it is woken when its turn comes.

        After `patience` seconds without a word it counts as lost. Raises `Superseded`.
        """
        handler = segment.batch.on_result or ""
        answer = self._offer(
            keys=[
                keys.entity(segment.member),
                keys.in_hand(handler),
                keys.queued(handler),
                keys.batch(segment.batch_id),
            ],
            args=[segment.member, segment.token, self._settings.handler_window, patience],
        )
        if answer < 0:
            raise Superseded(segment.member)
        return bool(answer)

    def withdraw(self, segment: HeldSegment) -> None:
        """Takes an offer back: the handler could not be given the segment."""
        free_place(self._free_place, segment.batch_id, segment.member, self._redis)

    def handed_over(self, segment: HeldSegment, *, parked: bool = False) -> None:
        """Lets go of a segment that its handler took, or that is parked. Raises `Superseded`."""
        self._checked(
            self._handed_over(
                keys=[keys.entity(segment.member), keys.batch(segment.batch_id),
                      keys.clock(Stage.DELIVER.queue), keys.PARKED],
                args=[segment.member, segment.token, int(parked)],
            ), segment,
        )  # fmt: skip

    def close(
        self,
        job: HeldJob,
        *,
        tidy: Callable[[], None],
        retry: Ordinals | None = None,
        attempt: int | None = None,
        losses: int | None = None,
    ) -> BatchState | None:
        """Closes a job, handing `retry` on to a new one; returns the batch's state if that ended it.

        Calls `tidy` right before the batch ends. The new job has the attempt and the losses of this one, but for the
        one that is given. Raises `Superseded`.
        """
        batch_id = job.batch_id
        prefix = job_prefix(batch_id)
        bitmap: bytes | str = ""
        fields: list[Any] = []
        if retry is not None:
            bitmap = retry.bitmap or b""
            new = _new_job(
                batch_id,
                stage=Stage.CREATE,
                attempt=job.record.attempt if attempt is None else attempt,
                losses=job.record.losses if losses is None else losses,
            )
            own: CarriedRequests = {"first": retry.first, "last": retry.last, "requests": len(retry), "sparse": True}
            fields = [*written_fields(new), *written_fields(own)]
        names = [keys.entity(job.member), keys.batch(batch_id), keys.clock(Stage.SETTLE.queue), keys.carried(prefix)]
        args = [
            job.member,
            job.token,
            Stage.CLEAN,
            keys.batch_member(batch_id),
            Stage.DELETE,
            self._settings.retention_seconds,
            keys.job(prefix),
            keys.job_member(prefix),
            _encode(job.record.error) if job.record.error else "",
            bitmap,
        ]
        closed, state = self._close(keys=names, args=[*args, 0, *fields])
        if state == b"untidy":
            tidy()
            closed, state = self._close(keys=names, args=[*args, 1, *fields])
        self._checked(closed, job)
        if state == b"unbalanced":
            raise RuntimeError(f"batch {batch_id}: the last job is settled but the counts do not add up")
        return BatchState(state.decode()) if state else None

    def segments(self, batch_id: str) -> dict[int, tuple[int, set[int]]]:
        """By the number of each job of a batch: how many segments it has had, and which of them were given up."""
        jobs = int(cast("bytes | None", self._redis.hget(keys.batch(batch_id), "jobs")) or 0)
        numbers = iter(range(1, jobs + 1))
        found: dict[int, tuple[int, set[int]]] = {}
        while some := list(islice(numbers, _AT_ONCE)):
            with self._redis.pipeline(transaction=False) as pipe:
                for number in some:
                    pipe.hmget(keys.job(job_id(batch_id, number)), "segments", "dropped")
                for number, (count, dropped) in zip(some, pipe.execute(), strict=True):
                    found[number] = int(count or 0), {int(given_up) for given_up in (dropped or b"").split()}
        return found

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
                    self._forget_job(
                        keys=[
                            keys.entity(batch.member),
                            keys.job(name),
                            keys.carried(name),
                            keys.clock(Stage.CLEAN.queue),
                            keys.clock(Stage.DELIVER.queue),
                            keys.PARKED,
                            keys.in_hand(handler),
                            keys.queued(handler),
                        ],
                        args=[batch.token, keys.job_member(name), f"segment:{name}:", keys.PREFIX],
                        client=pipe,
                    )
                self._checked(all(pipe.execute()), batch)
        forgotten = self._forget(
            keys=[
                keys.entity(batch.member),
                keys.settled(batch_id),
                keys.BATCHES,
                keys.clock(Stage.DELETE.queue),
                keys.idempotency(batch.record.idempotency_key or ""),
            ],
            args=[batch_id, batch.member, batch.token],
        )
        self._checked(forgotten, batch)

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
            found = cast("dict[bytes, bytes]", self._redis.hgetall(keys.job(name)))
            if not found:
                continue
            try:
                yield read_record(JobRecord, found)
            except DAMAGED as damage:
                log.warning("job %s is deleted as far as its record can be read: %s", name, damage)
                yield replace(salvage_record(JobRecord, found), id=name)

    def note_deleted(self, batch_id: str) -> None:
        """Notes that a batch is deleted, for as long as a late file of it may appear."""
        now = redis_time(self._redis)
        with self._redis.pipeline() as pipe:
            pipe.zadd(keys.DELETED, {batch_id: now})
            pipe.zremrangebyscore(keys.DELETED, "-inf", now - _DELETED_NOTED_SECONDS)
            pipe.execute()

    def was_deleted(self, batch_id: str) -> bool:
        """Whether a batch of this id was deleted."""
        return self._redis.zscore(keys.DELETED, batch_id) is not None

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


def bounded(error: ResultError) -> ResultError:
    """An error as a job keeps it: short, because each request that it ends gets a copy."""
    return error.shortened(MAX_JOB_ERROR_CHARS)


def _new_job(batch_id: str, *, stage: Stage | None, attempt: int, losses: int) -> NewJob:
    """Fields of a new job, beside its id, its number and its requests."""
    return {
        "v": VERSION,
        "batch_id": batch_id,
        "stage": stage,
        "token": 0,
        "busy": False,
        "state": JobState.PLANNED,
        "attempt": attempt,
        "losses": losses,
    }
