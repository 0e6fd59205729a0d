"""The clock: what is due when, and who works on it.

Two sorted sets in Redis, one per queue, scored by due time, hold every batch, job and segment whose next stage is to
come. A claim pushes an entity forward by a lease, so the work of a dead worker comes back by itself. Each hand-out has
a token of its own; a message or a worker with an older one finds nothing to do. Nothing in Lowtide uses Celery's
countdown or eta.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import redis

from lowtide.protocol import (
    OLDEST_RECORDS,
    RECORD_VERSION,
    Member,
    MemberKind,
    Queue,
    Stage,
    hash_pairs,
    keys,
    written_fields,
)
from lowtide.protocol.changes import NewSweep
from lowtide.store import durably, redis_time
from lowtide_worker.deadlines import elapsed
from lowtide_worker.events import Event
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import scripts
from lowtide_worker.state.held import (
    Change,
    Held,
    Lease,
    Move,
    NotHeld,
    Superseded,
    held_from,
)

log = logging.getLogger(__name__)

_CLAIM_LIMIT = 500
_LOWER_AT_ONCE = 4
"""Most members of the lower turn that are taken at once, and number for each second of a busy installation."""
_OLDER_SECONDS = 30.0
"""Pause until a record of an older version is retried, by chance half to one and a half times as long.

The message may reach a worker of the older version then, which finishes the batch.
"""
_OLDER = (
    f"its record is of a version before {OLDEST_RECORDS}, which this worker does not work on: "
    "let a worker of the earlier version finish it, or submit the requests again"
)


class Dispatch(NamedTuple):
    """A message to be sent."""

    member: Member
    stage: Stage
    token: int


class Clock:
    """Redis scripts around the two sorted sets."""

    def __init__(self, client: redis.Redis, settings: WorkerSettings) -> None:
        self._redis = client
        self._lease = settings.lease_seconds
        self._replicas = settings.replicas_to_wait_for
        self._window = settings.queue_window
        self._tick_pause = 0.9 * settings.clock_tick_seconds
        self._lower_by_tick = max(1, round(_LOWER_AT_ONCE * settings.clock_tick_seconds))
        self._claim = scripts.claim.load(client)
        self._begin = scripts.begin.load(client)
        self._advance = scripts.advance.load(client)
        self._keep = scripts.keep.load(client)

    def claim(self, queue: Queue, *, tick: bool = False) -> list[Dispatch]:
        """Takes what is due on a queue's clock, as far as the queue has room.

        With `tick`, only one worker at a time does it. Members of the lower turn are taken where all queues are nearly
        empty. Where they are not, a tick takes a few, so that these members wait a limited time.
        """
        flat = self._claim(
            clock=keys.clock(queue),
            queue=queue,
            ticked=keys.ticked(queue),
            most=_CLAIM_LIMIT,
            lease=self._lease,
            hash_prefix=keys.PREFIX,
            window=self._window,
            pause=self._tick_pause if tick else 0,
            other_queues=[other for other in Queue if other is not queue],
            lower=_LOWER_AT_ONCE,
            least_lower=self._lower_by_tick if tick else 0,
            stages=list(Stage),
        )
        claimed: list[Dispatch] = []
        for member, stage, token in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
            if token >= 0:
                claimed.append(Dispatch(Member(member, errors="replace"), Stage(stage.decode()), token))
            else:
                self._redis.hincrby(keys.COUNTERS, "odd_members", 1)
                log.warning("%r on the clock is ignored: %r", member, stage, extra=Event.CLOCK_ODD_MEMBER.extra)
        return claimed

    def start_sweep(self) -> None:
        """Puts the sweep on the clock, unless it is there."""
        name = keys.entity(keys.SWEEP_MEMBER)
        version = self._redis.hget(name, "v")
        new: NewSweep = {"v": RECORD_VERSION, "stage": Stage.SWEEP, "token": 0, "busy": False}
        with self._redis.pipeline() as pipe:
            for field, value in new.items():
                pipe.hsetnx(name, field, str(int(value) if isinstance(value, bool) else value))
            if version is not None and not (version.isdigit() and int(version) >= OLDEST_RECORDS):
                # It holds no work: there is nothing of an older version, or of a damaged one, to keep.
                pipe.hset(name, "v", str(RECORD_VERSION))
            pipe.zadd(keys.clock(Stage.SWEEP.queue), {keys.SWEEP_MEMBER: self.now()}, nx=True)
            pipe.execute()

    def now(self) -> float:
        """The time by Redis's clock, in Unix seconds."""
        return redis_time(self._redis)

    def begin(self, stage: Stage, member: Member, token: int) -> Held[Any] | NotHeld:
        """Begins the work of a message, or returns why there is none.

        The result is a `HeldBatch`, `HeldJob`, `HeldSegment`, `HeldEvent` or `HeldSweep`, as `member` says.
        """
        until = elapsed() + self._lease
        # The sweep has no batch, and a batch event outlives its own.
        alone = member.kind in {MemberKind.SWEEP, MemberKind.EVENT}
        batch = member if alone else keys.batch_member(member.batch)
        # A segment or batch event is removed when it is delivered, a batch when it is deleted. A message for a removed
        # one came once too often.
        ends = stage is Stage.DELETE or member.kind in {MemberKind.SEGMENT, MemberKind.EVENT}
        answer, *rest = self._begin(
            entity=keys.entity(member),
            clock=keys.clock(stage.queue),
            batch=keys.entity(batch),
            census=keys.CENSUS,
            member=member,
            stage=stage,
            token=token,
            lease=self._lease,
            version=RECORD_VERSION,
            job_hash=keys.job(""),
            pause=self._another_workers_turn(),
            absent=NotHeld.STALE if ends else NotHeld.MISSING,
            # What delete reads is the same in all versions, and a batch must not stay for ever.
            oldest=0 if stage is Stage.DELETE else OLDEST_RECORDS,
            older_pause=random.uniform(0.5, 1.5) * _OLDER_SECONDS,  # noqa: S311 - no secret
            older_problem=_OLDER,
        )
        if answer != b"held":
            if answer == b"older":
                log.error("%s: %s", member, _OLDER, extra=Event.RECORD_OLDER.extra)
            return NotHeld(answer.decode())
        token, begun, *hashes = rest
        return held_from(member, stage, token, float(begun), Lease(until), *map(hash_pairs, hashes))

    def _another_workers_turn(self) -> float:
        """Seconds until work that only a newer worker understands is sent again.

        The pause is random: the broker serves its workers in turn, so that with a steady pause the message could reach
        the same worker for ever.
        """
        return random.uniform(0.5, 1.5) * self._tick_pause  # noqa: S311 - no secret

    def advance(self, held: Held[Change], move: Move[Change]) -> Dispatch | None:
        """Ends the work; returns the message to send where the next stage is due at once."""
        token = self._advance(
            entity=keys.entity(held.member),
            clock=keys.clock(held.stage.queue),
            next_clock=keys.clock((move.stage or held.stage).queue),
            census=keys.CENSUS,
            member=held.member,
            token=held.token,
            stage=move.stage or "",
            after=move.after,
            lease=self._lease,
            fields=written_fields(move.fields),
        )
        if token < 0:
            raise Superseded(held.member)
        return Dispatch(held.member, move.stage, token) if token and move.stage else None

    def keep(self, held: Held[Change], fields: Change | None = None) -> None:
        """Renews the lease, and writes `fields` in the middle of the work. Raises `Superseded`."""
        until = elapsed() + self._lease
        self._kept(held, until, bool(self._renewed(held, fields, self._redis)))

    def keep_durably(self, held: Held[Change], fields: Change | None = None) -> None:
        """As `keep`, and waits until the fields are safe: see `lowtide.store.durability`. Raises `Superseded`."""
        until = elapsed() + self._lease
        kept = durably(self._redis, partial(self._renewed, held, fields), replicas=self._replicas)
        self._kept(held, until, bool(kept))

    def _renewed(self, held: Held[Change], fields: Change | None, client: redis.Redis) -> Any:
        return self._keep.within(client)(
            entity=keys.entity(held.member),
            clock=keys.clock(held.stage.queue),
            census=keys.CENSUS,
            member=held.member,
            token=held.token,
            lease=self._lease,
            fields=written_fields(fields or {}),
        )

    def check(self, held: Held[Any]) -> None:
        """Makes sure that no other worker holds the entity. Call it before work that no token guards.

        It costs a call to Redis only where the lease may have lapsed, because the process was frozen or Redis did not
        serve. Raises `Superseded`.
        """
        if held.lease.lost:
            raise Superseded(held.member)
        if elapsed() > held.lease.until:
            self.keep(held)

    def keeper(self, held: Held[Any]) -> Callable[[], None]:
        """`check` as a function without arguments, to be called as often as one likes during long work."""
        return partial(self.check, held)

    @staticmethod
    def _kept(held: Held[Any], until: float, kept: bool) -> None:
        if not kept:
            held.lease.lost = True
            raise Superseded(held.member)
        held.lease.until = until
