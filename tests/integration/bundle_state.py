"""The state that the sums of bundles are about: batches of one lane, their bundles, jobs and segments in the store."""

from __future__ import annotations

import math
import time
from typing import Any, ClassVar, cast

from tests.stack import Stack

from lowtide import BatchQueue
from lowtide.protocol import BatchRecord, JobRecord, Member, Stage, job_id, keys, read_record
from lowtide.states import FINISHED_BATCH
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Held, HeldSegment, Share
from lowtide_worker.state.held import Lease, held_from

MODEL = "gemini-3.5-flash"


class BundleState:
    """Batches of one lane, and what the store says of them."""

    stack: ClassVar[Stack]
    runtime: ClassVar[Runtime]
    queue: ClassVar[BatchQueue]
    batches: list[str]
    known_bundles: set[str]
    rows: dict[str, tuple[list[int], str]]
    """The ordinals of each segment's rows, and their status."""
    admitted: dict[str, int]
    """The tokens of each job that has a slot."""

    def hold(self, member: Member) -> Held[Any]:
        """Takes an entity as the next worker does: all that the last one still tries is refused."""
        client = self.stack.redis
        token = int(client.hincrby(keys.entity(member), "token", 1))
        client.hset(keys.entity(member), "busy", "1")
        found = cast("dict[bytes, bytes]", client.hgetall(keys.entity(member)))
        batch, job = (
            cast("dict[bytes, bytes]", client.hgetall(key))
            for key in (keys.batch(member.batch), keys.job(found.get(b"job_id", b"-").decode()))
        )
        stage = Stage(found[b"stage"].decode())
        return held_from(member, stage, token, time.time(), Lease(math.inf), found, batch, job)

    def is_due(self, batch_id: str) -> bool:
        score = self.stack.redis.zscore(keys.clock(Stage.DELETE.queue), keys.batch_member(batch_id))
        assert isinstance(score, float)
        return score <= self.runtime.clock.now()

    def batch(self, batch_id: str) -> BatchRecord:
        return read_record(BatchRecord, cast("dict[bytes, bytes]", self.stack.redis.hgetall(keys.batch(batch_id))))

    def job(self, name: str) -> JobRecord:
        return read_record(JobRecord, cast("dict[bytes, bytes]", self.stack.redis.hgetall(keys.job(name))))

    def open_bundles(self) -> list[str]:
        return sorted(one for one in self.known_bundles if self.batch(one).stage == Stage.SUBMIT)

    def ended(self) -> list[str]:
        return [one for one in self.batches if self.batch(one).state in FINISHED_BATCH]

    def jobs(self) -> list[Member]:
        """The jobs that are not closed yet."""
        found = []
        for batch_id in [*self.batches, *sorted(self.known_bundles)]:
            for number in range(1, self.batch(batch_id).jobs + 1):
                record = self.job(job_id(batch_id, number))
                if record.stage in (Stage.CREATE, Stage.POLL) or (
                    record.stage == Stage.SETTLE and not record.segments_left
                ):
                    found.append(keys.job_member(record.id))
        return found

    def shares(self, segment: HeldSegment) -> list[Share]:
        batch = segment.batch
        return self.runtime.bundles.shares(segment.batch_id, batch.total) if batch.bundled else []
