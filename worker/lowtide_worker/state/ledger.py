"""The ledger: which request has its result, which job carries what, and when a batch is complete.

Every change is one atomic script that first checks that the caller still holds the entity; a second run of
the same work changes nothing.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import msgspec
import redis

from lowtide.models import ResultError
from lowtide.protocol import VERSION, Stage, job_id, keys
from lowtide.states import BatchState, JobState
from lowtide.store import Places, pairs, redis_time
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import scripts
from lowtide_worker.state.clock import Held, Superseded
from lowtide_worker.state.ordinals import Rows, missing_rows

log = logging.getLogger(__name__)

_WATCH_SECONDS = 600.0
"""How often a job that waits for its segments is looked at, should its last segment never say so."""
_DELETED_NOTED_SECONDS = 30 * 86_400.0
"""How long it is remembered that a batch was deleted."""
_AT_ONCE = 500
MAX_JOB_ERROR_CHARS = 500
"""Of the text of an error that a whole job ended with."""


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
        self._offer = scripts.offer.load(client)
        self._places = Places(client)
        self._handed_over = scripts.handed_over.load(client)
        self._close = scripts.close.load(client)
        self._forget_job = scripts.forget_job.load(client)
        self._forget = scripts.forget.load(client)
        self._lose = scripts.lose.load(client)

    def draft(self, batch: Held, first: int, jobs: Sequence[Rows]) -> None:
        """Writes down some of a batch's first jobs, numbered from `first` on. Raises `Superseded`."""
        prefix = job_id(batch.batch_id, 0)[:-1]
        common = {**_new_job(batch.batch_id, attempt=1, losses=0), "stage": ""}
        drafted = self._draft(
            batch=keys.entity(batch.member),
            token=batch.token,
            job_hash=keys.job(prefix),
            job_carried=keys.rows(prefix),
            job_id=prefix,
            first=first,
            shared=pairs(common.items()),
            jobs=[part for rows in jobs for part in (rows.first, rows.last, len(rows), rows.bitmap or b"")],
        )
        self._checked(drafted, batch)

    def plan(self, batch: Held, jobs: int) -> None:
        """Makes all drafted jobs of a batch due to be created, `jobs` in number. Raises `Superseded`.

        One script for all: it takes about a microsecond a job.
        """
        prefix = job_id(batch.batch_id, 0)[:-1]
        planned = self._plan(
            batch=keys.entity(batch.member),
            clock=keys.clock(Stage.CREATE.queue),
            member=batch.member,
            token=batch.token,
            job_hash=keys.job(prefix),
            job_member=keys.job_member(prefix),
            job_carried=keys.rows(prefix),
            jobs=jobs,
            stage=Stage.CREATE,
        )
        self._checked(planned, batch)

    def lose(self, batch: Held, error: ResultError) -> None:
        """Ends a batch whose requests are gone, and frees its idempotency key. Raises `Superseded`."""
        lost = self._lose(
            batch=keys.entity(batch.member),
            clock=keys.clock(Stage.DELETE.queue),
            idempotency=keys.idempotency(batch.fields.get("idempotency_key", "")),
            member=batch.member,
            token=batch.token,
            batch_id=batch.batch_id,
            error=encoded_error(error),
            stage=Stage.DELETE,
            retention=self._settings.retention_seconds,
        )
        self._checked(lost, batch)

    def rows(self, job: Held) -> Rows:
        """The requests a job carries."""
        first, last = job.number("first"), job.number("last")
        if not job.number("sparse"):
            return Rows(first=first, last=last)
        return Rows(first=first, last=last, bitmap=cast("bytes", self._redis.get(keys.rows(job.fields["id"])) or b""))

    def unsettled(self, batch_id: str, rows: Rows) -> Rows | None:
        """Those of `rows` that have no result yet; None where all have one."""
        raw = cast("bytes", self._redis.getrange(keys.settled(batch_id), rows.first // 8, (rows.last - 1) // 8))
        return missing_rows(rows, raw)

    def segment(
        self, job: Held, source: str, ends: Sequence[int], *, piece: str = "", collected: int | None = None
    ) -> None:
        """Puts segments of a file on the clock; with the last, the job waits for all in settle. Raises `Superseded`.

        `ends` are the byte offsets at which the segments end; the first begins at 0. `collected` is given where more
        segments will come: the bytes of output up to where they begin.
        """
        prefix = f"{job.fields['id']}:"
        cut = self._segment(
            job=keys.entity(job.member),
            clock=keys.clock(job.stage.queue),
            segments_clock=keys.clock(Stage.DELIVER.queue),
            next_clock=keys.clock(Stage.SETTLE.queue),
            member=job.member,
            token=job.token,
            stage=Stage.SETTLE,
            watch=_WATCH_SECONDS,
            version=VERSION,
            batch_id=job.batch_id,
            job_id=job.fields["id"],
            segment_stage=Stage.DELIVER,
            source=source,
            segment_hash=keys.entity(f"segment:{prefix}"),
            segment_member=f"segment:{prefix}",
            piece=piece,
            collected="" if collected is None else collected,
            spans=pairs(zip([0, *ends], ends, strict=False)),
        )
        self._checked(cut, job)

    def grant(self, segment: Held, ordinals: Sequence[int]) -> list[bool]:
        """Which of these requests get their result from this segment. Raises `Superseded`."""
        if not ordinals:
            return []
        consecutive = list(ordinals) == list(range(ordinals[0], ordinals[0] + len(ordinals)))
        answer = self._grant(
            segment=keys.entity(segment.member),
            settled=keys.settled(segment.batch_id),
            batch=keys.batch(segment.batch_id),
            token=segment.token,
            ordinals=struct.pack(f"<{len(ordinals)}I", *ordinals),
            consecutive=int(consecutive),
        )
        if answer is None:
            raise Superseded(segment.member)
        return [bit == 0x31 for bit in answer]

    def record(self, segment: Held, counts: Mapping[str, int], *, handler_waits: bool) -> int:
        """Counts a stored segment; returns how many of its job are left. Raises `Superseded`."""
        job = segment.fields["job_id"]
        left = self._record(
            segment=keys.entity(segment.member),
            job=keys.job(job),
            batch=keys.batch(segment.batch_id),
            clock=keys.clock(Stage.DELIVER.queue),
            job_clock=keys.clock(Stage.SETTLE.queue),
            member=segment.member,
            token=segment.token,
            job_member=keys.job_member(job),
            handler_waits=int(handler_waits),
            lease=self._settings.lease_seconds,
            counts=pairs((name, amount) for name, amount in counts.items() if amount),
        )
        if left < 0:
            raise Superseded(segment.member)
        return int(left)

    def recollect(self, segment: Held, *, from_provider: bool) -> None:
        """Gives up a segment whose bytes are gone, for its job to bring them again. Raises `Superseded`."""
        job = segment.fields["job_id"]
        given_up = self._recollect(
            segment=keys.entity(segment.member),
            job=keys.job(job),
            settled=keys.settled(segment.batch_id),
            clock=keys.clock(Stage.DELIVER.queue),
            job_clock=keys.clock(Stage.SETTLE.queue),
            member=segment.member,
            token=segment.token,
            job_member=keys.job_member(job),
            stage=Stage.COLLECT if from_provider else "",
        )
        self._checked(given_up, segment)

    def offer(self, segment: Held, *, patience: float) -> bool:
        """Whether the handler may be given a segment now; if not, it is woken when its turn comes.

        After `patience` seconds without a word it counts as lost. Raises `Superseded`.
        """
        handler = segment.batch["on_result"]
        answer = self._offer(
            segment=keys.entity(segment.member),
            in_hand=keys.in_hand(handler),
            queued=keys.queued(handler),
            batch=keys.batch(segment.batch_id),
            member=segment.member,
            token=segment.token,
            most=self._settings.handler_window,
            patience=patience,
        )
        if answer < 0:
            raise Superseded(segment.member)
        return bool(answer)

    def withdraw(self, segment: Held) -> None:
        """Takes an offer back: the handler could not be given the segment."""
        self._places.free(segment.batch_id, segment.member)

    def handed_over(self, segment: Held, *, parked: bool = False) -> None:
        """Lets go of a segment that its handler took, or that is parked. Raises `Superseded`."""
        ended = self._handed_over(
            segment=keys.entity(segment.member),
            batch=keys.batch(segment.batch_id),
            clock=keys.clock(Stage.DELIVER.queue),
            parked=keys.PARKED,
            member=segment.member,
            token=segment.token,
            parks=int(parked),
        )
        self._checked(ended, segment)

    def close(
        self,
        job: Held,
        *,
        tidy: Callable[[], None],
        retry: Rows | None = None,
        attempt: int | None = None,
        losses: int | None = None,
    ) -> BatchState | None:
        """Closes a job, handing `retry` on to a new one; returns the batch's state if that ended it.

        `tidy` is called where this will end the batch, right before. The new job is of the same attempt with as many
        losses as this one, but for the one that is given.
        """
        batch_id = job.batch_id
        prefix = job_id(batch_id, 0)[:-1]
        bitmap: bytes | str = ""
        fields: list[Any] = []
        if retry is not None:
            bitmap = retry.bitmap or b""
            new = _new_job(
                batch_id,
                attempt=job.number("attempt") if attempt is None else attempt,
                losses=job.number("losses") if losses is None else losses,
            )
            own = {"first": retry.first, "last": retry.last, "requests": len(retry), "sparse": 1}
            fields = pairs((new | own).items())

        def ask(*, is_tidy: bool) -> Any:
            return self._close(
                job=keys.entity(job.member),
                batch=keys.batch(batch_id),
                clock=keys.clock(Stage.SETTLE.queue),
                carried=keys.rows(prefix),
                member=job.member,
                token=job.token,
                stage=Stage.CLEAN,
                batch_member=keys.batch_member(batch_id),
                batch_stage=Stage.DELETE,
                retention=self._settings.retention_seconds,
                job_hash=keys.job(prefix),
                job_member=keys.job_member(prefix),
                job_id=prefix,
                error=job.fields.get("error", ""),
                bitmap=bitmap,
                tidy=int(is_tidy),
                fields=fields,
            )

        closed, state = ask(is_tidy=False)
        if state == b"untidy":
            tidy()
            closed, state = ask(is_tidy=True)
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

    def forget(self, batch: Held, check: Callable[[], None]) -> None:
        """Removes every key of a batch, and `check`s again and again. Raises `Superseded`.

        Job by job, in pipelines: a script for all would hold up Redis for seconds where there are many segments.
        """
        batch_id, handler = batch.batch_id, batch.batch["on_result"]
        for first in range(1, batch.number("jobs") + 1, _AT_ONCE):
            check()
            numbers = range(first, min(first + _AT_ONCE, batch.number("jobs") + 1))
            with self._redis.pipeline(transaction=False) as pipe:
                for name in (job_id(batch_id, number) for number in numbers):
                    self._forget_job.within(pipe)(
                        batch=keys.entity(batch.member),
                        job=keys.job(name),
                        carried=keys.rows(name),
                        clock=keys.clock(Stage.CLEAN.queue),
                        segments_clock=keys.clock(Stage.DELIVER.queue),
                        parked=keys.PARKED,
                        in_hand=keys.in_hand(handler),
                        queued=keys.queued(handler),
                        token=batch.token,
                        job_member=keys.job_member(name),
                        segment_member=f"segment:{name}:",
                        hash_prefix=keys.PREFIX,
                    )
                self._checked(all(pipe.execute()), batch)
        forgotten = self._forget(
            batch=keys.entity(batch.member),
            settled=keys.settled(batch_id),
            batches=keys.BATCHES,
            clock=keys.clock(Stage.DELETE.queue),
            idempotency=keys.idempotency(batch.fields.get("idempotency_key", "")),
            batch_id=batch_id,
            member=batch.member,
            token=batch.token,
        )
        self._checked(forgotten, batch)

    def job(self, job: str) -> dict[str, str]:
        """The fields of a job; empty where there is none."""
        found = cast("dict[bytes, bytes]", self._redis.hgetall(keys.job(job)))
        return {name.decode(): value.decode() for name, value in found.items()}

    def sees_jobs(self, job: Held, *, before: float, after: float) -> bool:
        """Whether the provider showed another job of ours after one instant that was created before another.

        Jobs that live there are asked about, and those of the same batch. Both are in Unix seconds.
        """
        live = cast("list[bytes]", self._redis.zrange(keys.live(job.batch["provider"]), 0, -1))
        others = {name.decode() for name in live}
        others |= {job_id(job.batch_id, number) for number in range(1, int(job.batch["jobs"]) + 1)}
        names = iter(others - {job.fields["id"]})
        while some := list(islice(names, _AT_ONCE)):
            with self._redis.pipeline(transaction=False) as pipe:
                for name in some:
                    pipe.hmget(keys.job(name), "created", "seen")
                for created, seen in pipe.execute():
                    if created and seen and float(created) <= before and float(seen) >= after:
                        return True
        return False

    def jobs(self, batch: Held) -> Iterator[dict[str, str]]:
        """The fields of each job of a batch."""
        for number in range(1, batch.number("jobs") + 1):
            if found := self.job(job_id(batch.batch_id, number)):
                yield found

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
        return state in {b"pending", b"running", b"cancelling"}

    def knows(self, member: str) -> bool:
        """Whether there is such a batch, job or segment."""
        return bool(self._redis.exists(keys.entity(member)))

    @staticmethod
    def _checked(held_still: int, held: Held) -> None:
        if not held_still:
            raise Superseded(held.member)


def encoded_error(error: ResultError | None) -> str:
    """An error as a job's hash keeps it, which is written once more for each request that it ends."""
    return msgspec.json.encode(error.shortened(MAX_JOB_ERROR_CHARS)).decode() if error else ""


def _new_job(batch_id: str, *, attempt: int, losses: int) -> dict[str, Any]:
    """Fields of a new job's hash, beside its own name and requests."""
    return {
        "v": VERSION, "batch_id": batch_id, "stage": Stage.CREATE, "token": 0, "busy": 0,
        "state": JobState.PLANNED, "attempt": attempt, "losses": losses,
    }  # fmt: skip
