"""The clock: what is due when, and who works on it.

Two sorted sets in Redis, one per queue, scored by due time, hold every batch, job and segment that has
something to come. Taking one pushes it forward by a lease, so what a dead worker held comes back by itself.
Each hand-out has a token of its own; a message or a worker with an older one finds nothing to do.
Nothing in Lowtide uses Celery's countdown or eta.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import redis

from lowtide.protocol import VERSION, Queue, Stage, keys
from lowtide.store import durably, pairs, redis_time
from lowtide_worker.deadlines import elapsed
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import scripts

log = logging.getLogger(__name__)

Fields = Mapping[str, Any]
_CLAIM_LIMIT = 500


class Superseded(Exception):
    """Another worker holds the entity now; whatever is still to be done here is not ours any more."""


@dataclass(slots=True)
class Lease:
    """How long this process may believe that it holds an entity."""

    until: float
    """By `deadlines.elapsed`: until then nobody else can have been given it."""
    lost: bool = False
    """Somebody else holds it, or it was held for too long."""


class Dispatch(NamedTuple):
    """A message to be sent."""

    member: str
    stage: Stage
    token: int


@dataclass(frozen=True)
class Held:
    """An entity whose work this process has begun, with its fields and its batch's as they were then."""

    member: str
    stage: Stage
    token: int
    fields: dict[str, str]
    batch: dict[str, str]
    begun: float
    """When, by Redis's clock, in Unix seconds."""
    job: dict[str, str] = field(default_factory=dict)
    """The fields of the job that a segment belongs to."""
    lease: Lease = field(default_factory=lambda: Lease(math.inf))
    _began: float = field(default_factory=elapsed)

    def now(self) -> float:
        """The time by Redis's clock, in Unix seconds: the workers' own clocks may differ from each other."""
        return self.begun + elapsed() - self._began

    @property
    def batch_id(self) -> str:
        """The batch it belongs to, or is."""
        return self.batch["id"]

    def number(self, name: str, default: int = 0) -> int:
        """A field as an integer."""
        return int(self.fields.get(name) or default)


@dataclass(frozen=True, kw_only=True)
class Move:
    """How a stage ends: the entity's next stage (None: off the clock), when, and what to remember."""

    stage: Stage | None
    after: float = 0.0
    """Seconds until it is due; 0 sends its message at once."""
    fields: Fields = field(default_factory=dict)
    wakes: tuple[Queue, ...] = ()
    """Queues for which something else is due now that need not wait for the tick."""


@dataclass(frozen=True)
class Done:
    """How a stage ends whose script has moved the entity already; `facts` are for whoever watches."""

    facts: Fields = field(default_factory=dict)
    wakes: tuple[Queue, ...] = ()
    """Queues for which something is due now that need not wait for the tick."""


class Clock:
    """Redis scripts around the two sorted sets."""

    def __init__(self, client: redis.Redis, settings: WorkerSettings) -> None:
        self._redis = client
        self._lease = settings.lease_seconds
        self._replicas = settings.replicas_to_wait_for
        self._window = settings.queue_window
        self._tick_ms = int(settings.clock_tick_seconds * 900)
        self._claim = scripts.claim.load(client)
        self._begin = scripts.begin.load(client)
        self._advance = scripts.advance.load(client)
        self._keep = scripts.keep.load(client)

    def claim(self, queue: Queue, *, tick: bool = False) -> list[Dispatch]:
        """Takes what is due on a queue's clock, as far as the queue has room.

        With `tick`, only one worker at a time does it.
        """
        flat = self._claim(
            clock=keys.clock(queue),
            queue=queue,
            ticker=keys.ticker(queue),
            most=_CLAIM_LIMIT,
            lease=self._lease,
            hash_prefix=keys.PREFIX,
            window=self._window,
            guard_ms=self._tick_ms if tick else 0,
            stages=list(Stage),
        )
        claimed: list[Dispatch] = []
        for member, stage, token in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
            if token >= 0:
                claimed.append(Dispatch(member.decode(errors="replace"), Stage(stage.decode()), token))
            else:
                self._redis.hincrby(keys.COUNTERS, "odd_members", 1)
                log.warning("%r on the clock is passed over: %r", member, stage)
        return claimed

    def start_sweep(self) -> None:
        """Puts the sweep on the clock, unless it is there."""
        with self._redis.pipeline() as pipe:
            for name, value in {"v": VERSION, "stage": Stage.SWEEP, "token": 0, "busy": 0}.items():
                pipe.hsetnx(keys.entity(keys.SWEEP_MEMBER), name, str(value))
            pipe.zadd(keys.clock(Stage.SWEEP.queue), {keys.SWEEP_MEMBER: self.now()}, nx=True)
            pipe.execute()

    def now(self) -> float:
        """The time by Redis's clock, in Unix seconds."""
        return redis_time(self._redis)

    def begin(self, stage: Stage, member: str, batch: str, token: int) -> Held | str:
        """Begins the work of a message, or says why there is none: `missing`, `gone`, `stale` or `newer`.

        `batch` is the member of the batch that `member` belongs to, or is.
        """
        until = elapsed() + self._lease
        # What is done with goes, a segment delivered or deleted with its batch, and a deleted batch: where there is no
        # such entity, this message came once too often.
        ends = stage is Stage.DELETE or member.startswith("segment:")
        answer, *rest = self._begin(
            entity=keys.entity(member),
            clock=keys.clock(stage.queue),
            batch=keys.entity(batch),
            member=member,
            stage=stage,
            token=token,
            lease=self._lease,
            version=VERSION,
            job_hash=keys.job(""),
            pause=self._another_workers_turn(),
            absent="stale" if ends else "missing",
        )
        if answer != b"held":
            return str(answer.decode())
        fields, batch_fields, job_fields = map(_pairs, rest[2:])
        return Held(member, stage, rest[0], fields, batch_fields, float(rest[1]), job_fields, Lease(until))

    def _another_workers_turn(self) -> float:
        """Seconds until what only a newer worker understands is sent again.

        By chance: the broker serves its workers in turn, so that a steady pause could lead to the same one for ever.
        """
        return random.uniform(0.5, 1.5) * self._tick_ms / 1000  # noqa: S311 - no secret

    def advance(self, held: Held, move: Move) -> Dispatch | None:
        """Ends the work; returns the message to send where the next stage is due at once."""
        token = self._advance(
            entity=keys.entity(held.member),
            clock=keys.clock(held.stage.queue),
            next_clock=keys.clock((move.stage or held.stage).queue),
            member=held.member,
            token=held.token,
            stage=move.stage or "",
            after=move.after,
            lease=self._lease,
            fields=pairs(move.fields.items()),
        )
        if token < 0:
            raise Superseded(held.member)
        return Dispatch(held.member, move.stage, token) if token and move.stage else None

    def keep(self, held: Held, fields: Fields | None = None) -> None:
        """Renews the lease, and writes `fields` in the middle of the work. Raises `Superseded`."""
        until = elapsed() + self._lease
        self._kept(held, until, bool(self._renewed(held, fields or {}, self._redis)))

    def keep_durably(self, held: Held, fields: Fields) -> None:
        """As `keep`, and waits until the fields are safe: see `lowtide.store.durability`. Raises `Superseded`."""
        until = elapsed() + self._lease
        kept = durably(self._redis, partial(self._renewed, held, fields), replicas=self._replicas)
        self._kept(held, until, bool(kept))

    def _renewed(self, held: Held, fields: Fields, client: redis.Redis) -> Any:
        return self._keep.within(client)(
            entity=keys.entity(held.member),
            clock=keys.clock(held.stage.queue),
            member=held.member,
            token=held.token,
            lease=self._lease,
            fields=pairs(fields.items()),
        )

    def check(self, held: Held) -> None:
        """Makes sure that nobody else holds the entity: to be called before what no token guards. Raises `Superseded`.

        It costs a call only where the lease may have lapsed, because the process was frozen or Redis did not serve.
        """
        if held.lease.lost:
            raise Superseded(held.member)
        if elapsed() > held.lease.until:
            self.keep(held)

    def keeper(self, held: Held) -> Callable[[], None]:
        """`check` as a function to call as often as one likes during long work."""
        return partial(self.check, held)

    @staticmethod
    def _kept(held: Held, until: float, kept: bool) -> None:
        if not kept:
            held.lease.lost = True
            raise Superseded(held.member)
        held.lease.until = until


def _pairs(flat: list[bytes]) -> dict[str, str]:
    # One field is no text: the ordinals that a segment was granted, which only scripts read.
    return {k.decode(): v.decode(errors="replace") for k, v in zip(flat[::2], flat[1::2], strict=True)}
