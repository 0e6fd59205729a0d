"""The entity that a worker holds while it works on it, and the ways in which a stage ends."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar, assert_never

from lowtide.models import ResultError
from lowtide.protocol import (
    BatchRecord,
    DamagedRecord,
    EntityRecord,
    EventRecord,
    JobRecord,
    Member,
    MemberKind,
    Queue,
    SegmentRecord,
    Stage,
    SweepRecord,
    read_record,
    salvage_record,
)
from lowtide.protocol.changes import BatchChange, EntityChange, EventChange, JobChange, SegmentChange
from lowtide_worker.deadlines import elapsed

Change = TypeVar("Change", bound=EntityChange)
Record = TypeVar("Record", bound=EntityRecord)
Value = TypeVar("Value")
MAX_JOB_ERROR_CHARS = 500
"""Most characters of the error that a whole job ended with: each request that it ends gets a copy."""
_MOST_AHEAD_SECONDS = 2 * 86_400.0


class Superseded(Exception):
    """Another worker holds the entity now: this worker's work on it is over."""


class NotHeld(StrEnum):
    """Why a message brings no work."""

    MISSING = "missing"
    """There is no such entity."""
    GONE = "gone"
    """Its batch is deleted."""
    STALE = "stale"
    """The message is an old one: its token was used, or the entity is in another stage."""
    NEWER = "newer"
    """A newer version wrote the record: a newer worker gets it."""
    OLDER = "older"
    """An older version wrote the record, and this one does not work on it."""


@dataclass(slots=True)
class Lease:
    """The time for which this process may assume that it holds an entity."""

    until: float
    """By `deadlines.elapsed`: until then no other worker can have been given it."""
    lost: bool = False
    """Another worker holds it, or it was held for too long."""


@dataclass(frozen=True, kw_only=True)
class Held(Generic[Change]):
    """An entity whose work this process has begun, with its record as it was then."""

    member: Member
    stage: Stage
    token: int
    record: EntityRecord
    begun: float
    """When, by Redis's clock, in Unix seconds."""
    lease: Lease = field(default_factory=lambda: Lease(math.inf))
    damage: DamagedRecord | None = None
    """The reason why its records cannot be read; they then hold only what could be, and no stage may run."""
    _began: float = field(default_factory=elapsed)

    def now(self) -> float:
        """The time by Redis's clock, in Unix seconds: the workers' own clocks may differ from each other."""
        return self.begun + elapsed() - self._began

    def noted(self, moment: float | None) -> float:
        """A moment that its record has noted, or now where it has none.

        One that is still to come is now, too: Redis's clock was set back since, and nothing is to wait for that long.
        """
        now = self.now()
        return now if moment is None else min(moment, now)

    def age_of(self, moment: float) -> float:
        """Seconds since a moment of Redis's clock, for what ends because of its age.

        Where Redis's clock is more than two days ahead of this machine's, it is taken to be wrong: an hour of it could
        delete every batch. Then this machine's counts.
        """
        now, own = self.now(), time.time()
        return (own if now - own > _MOST_AHEAD_SECONDS else now) - moment

    @property
    def batch_id(self) -> str:
        """The batch that it belongs to, is, or is about."""
        return self.member.batch


@dataclass(frozen=True, kw_only=True)
class HeldBatch(Held[BatchChange]):
    """A batch at work."""

    record: BatchRecord

    @property
    def batch(self) -> BatchRecord:
        """Its record, under the name that jobs and segments have for it."""
        return self.record


@dataclass(frozen=True, kw_only=True)
class HeldJob(Held[JobChange]):
    """A job at work."""

    record: JobRecord
    batch: BatchRecord


@dataclass(frozen=True, kw_only=True)
class HeldSegment(Held[SegmentChange]):
    """A segment at work."""

    record: SegmentRecord
    batch: BatchRecord
    job_record: JobRecord | None
    """None for a stored segment, which needs no more of its job, and where Redis does not know the job."""

    @property
    def job(self) -> JobRecord:
        """The record of its job. Raises `DamagedRecord` where there is none."""
        if self.job_record is None:
            raise DamagedRecord(f"there is no record of its job {self.member.job}")
        return self.job_record


@dataclass(frozen=True, kw_only=True)
class HeldEvent(Held[EventChange]):
    """A batch event at work."""

    record: EventRecord

    @property
    def batch(self) -> EventRecord:
        """The copy of its batch."""
        return self.record


@dataclass(frozen=True, kw_only=True)
class HeldSweep(Held[EntityChange]):
    """The sweep at work."""

    record: SweepRecord


def bounded(error: ResultError) -> ResultError:
    """An error as a job keeps it: short, because each request that it ends gets a copy."""
    return error.shortened(MAX_JOB_ERROR_CHARS)


def known(value: Value | None, field_name: str) -> Value:
    """A field that an earlier stage has written. Raises `DamagedRecord` where it is absent."""
    if value is None:
        raise DamagedRecord(f"the record has no field `{field_name}`")
    return value


def _no_change() -> Any:
    return {}


@dataclass(frozen=True, kw_only=True)
class Move(Generic[Change]):
    """How a stage ends: the entity's next stage (None: off the clock), when, and the fields that change."""

    stage: Stage | None
    after: float = 0.0
    """Seconds until it is due; 0 sends its message at once."""
    fields: Change = field(default_factory=_no_change)
    wakes: tuple[Queue, ...] = ()
    """Queues for which something else is due now that need not wait for the tick."""


@dataclass(frozen=True)
class Done:
    """How a stage ends whose script has moved the entity already; `facts` are for people who watch."""

    facts: Mapping[str, object] = field(default_factory=dict)
    wakes: tuple[Queue, ...] = ()
    """Queues for which something is due now that need not wait for the tick."""


BatchMove = Move[BatchChange]
JobMove = Move[JobChange]
SegmentMove = Move[SegmentChange]
EventMove = Move[EventChange]
SweepMove = Move[EntityChange]


class _Read(Protocol):
    def __call__(self, kind: type[Record], found: Mapping[bytes, bytes], /) -> Record: ...


def held_from(
    member: Member,
    stage: Stage,
    token: int,
    begun: float,
    lease: Lease,
    found: Mapping[bytes, bytes],
    batch: Mapping[bytes, bytes],
    job: Mapping[bytes, bytes],
) -> Held[Any]:
    """Builds a `Held` from the hashes of the entity, of its batch, and of its job if it is a segment."""
    common = {"member": member, "stage": stage, "token": token, "begun": begun, "lease": lease}
    try:
        return _typed(common, read_record, found, batch, job)
    except DamagedRecord as damage:
        return _typed({**common, "damage": damage}, salvage_record, found, batch, job)


def _typed(
    common: dict[str, Any],
    read: _Read,
    found: Mapping[bytes, bytes],
    batch: Mapping[bytes, bytes],
    job: Mapping[bytes, bytes],
) -> Held[Any]:
    kind: MemberKind = common["member"].kind
    match kind:
        case MemberKind.BATCH:
            return HeldBatch(**common, record=read(BatchRecord, found))
        case MemberKind.JOB:
            return HeldJob(**common, record=read(JobRecord, found), batch=read(BatchRecord, batch))
        case MemberKind.SEGMENT:
            segment = read(SegmentRecord, found)
            # A stored segment is only handed over: a damaged job must not keep its results from the handler.
            of_job = read(JobRecord, job) if job and not segment.stored else None
            return HeldSegment(**common, record=segment, batch=read(BatchRecord, batch), job_record=of_job)
        case MemberKind.EVENT:
            return HeldEvent(**common, record=read(EventRecord, found))
        case MemberKind.SWEEP:
            return HeldSweep(**common, record=read(SweepRecord, found))
        case never:
            assert_never(never)
