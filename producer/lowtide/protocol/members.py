"""Members: the names of batches, jobs, segments and batch events, as the clock and other sets hold them."""

from __future__ import annotations

from enum import StrEnum

from lowtide.protocol.layout import BATCH_ID, split_job_id


class MemberKind(StrEnum):
    """The kind of entity that a member names."""

    BATCH = "batch"
    JOB = "job"
    SEGMENT = "segment"
    EVENT = "event"
    SWEEP = "sweep"


class EventName(StrEnum):
    """The batch events that a batch can have."""

    FINISHED = "finished"
    """The batch has ended."""
    PROGRESS = "progress"
    """Requests of the batch were answered."""


class Member(str):
    """The name of an entity: `batch:<batch>`, `job:<job>`, `segment:<job>:<n>`, `event:<batch>:<name>` or `sweep`.

    It is text to Redis and in log lines; its parts have names. Only `parse` checks them.
    """

    __slots__ = ()

    @classmethod
    def of_batch(cls, batch: str) -> Member:
        """The member of a batch."""
        return cls(f"{MemberKind.BATCH}:{batch}")

    @classmethod
    def of_job(cls, job: str) -> Member:
        """The member of a job."""
        return cls(f"{MemberKind.JOB}:{job}")

    @classmethod
    def of_segment(cls, job: str, number: int | str) -> Member:
        """The member of a segment of a job; the beginning of all such members where the number is ""."""
        return cls(f"{MemberKind.SEGMENT}:{job}:{number}")

    @classmethod
    def of_event(cls, batch: str, name: str) -> Member:
        """The member of a batch event."""
        return cls(f"{MemberKind.EVENT}:{batch}:{name}")

    @classmethod
    def parse(cls, name: str) -> Member:
        """The member of this name. Raises `ValueError` for a name that is none."""
        member = cls(name)
        kind, _, rest = name.partition(":")
        job, colon, number = rest.partition(":")
        match kind:
            case MemberKind.SWEEP if name == SWEEP:
                return member
            case MemberKind.BATCH if BATCH_ID.fullmatch(rest):
                return member
            case MemberKind.JOB if not colon:
                split_job_id(rest)
                return member
            case MemberKind.SEGMENT if number.isascii() and number.isdecimal():
                split_job_id(job)
                return member
            case MemberKind.EVENT if BATCH_ID.fullmatch(job) and number in set(EventName):
                return member
        raise ValueError(f"not a member of the clock: {name!r:.80}")

    @property
    def kind(self) -> MemberKind:
        """The kind of entity that it names."""
        return MemberKind(self.partition(":")[0])

    @property
    def job(self) -> str:
        """The id of the job that it names or belongs to; "" for all others."""
        return self.split(":")[1] if self.kind in {MemberKind.JOB, MemberKind.SEGMENT} else ""

    @property
    def batch(self) -> str:
        """The id of the batch that it names or belongs to; "" for the sweep."""
        match self.kind:
            case MemberKind.SWEEP:
                return ""
            case MemberKind.BATCH | MemberKind.EVENT:
                return self.split(":")[1]
            case _:
                return self.job.rpartition("-")[0]

    @property
    def number(self) -> int:
        """The number of a segment in its job, or of a job in its batch; 0 for all others."""
        match self.kind:
            case MemberKind.SEGMENT:
                return int(self.rpartition(":")[2])
            case MemberKind.JOB:
                return int(self.rpartition("-")[2])
            case _:
                return 0

    @property
    def event(self) -> str:
        """The name of a batch event, as `EventName` has it; "" for all others."""
        return self.split(":")[2] if self.kind is MemberKind.EVENT else ""

    @property
    def delivery_id(self) -> str:
        """The id under which a handler knows a segment or a batch event: its member without the kind."""
        return self.partition(":")[2]


SWEEP = Member(MemberKind.SWEEP)
"""The one sweep."""
