"""The sums that hold whatever happens to batches that share jobs."""

from __future__ import annotations

from collections import Counter
from typing import cast

from tests.census import counted, scanned
from tests.integration.bundle_state import MODEL, BundleState
from tests.records import held_job

from lowtide.protocol import Member, Stage, job_id, keys
from lowtide.states import FINISHED_BATCH, BatchState
from lowtide_worker.state import Ordinals

SLOTS = 2
STATUSES = ("succeeded", "failed", "expired", "cancelled")


class BundleChecks(BundleState):
    """Checks of what always holds: a method for each sum."""

    def every_settled_request_is_counted_once(self) -> None:
        """But for those that are granted to a segment which is not recorded yet."""
        granted: Counter[str] = Counter()
        for member in self.rows:
            batch_id = Member.parse(member).batch
            bits = cast("bytes | None", self.stack.redis.hget(keys.entity(Member.parse(member)), "granted"))
            ones = [n for n, bit in zip(self.rows[member][0], bits or b"", strict=False) if bit == ord("1")]
            granted[batch_id] += len(ones)
            if batch_id in self.known_bundles:
                for share in self.runtime.bundles.shares(batch_id, self.batch(batch_id).total):
                    granted[share.batch_id] += sum(share.first <= n < share.last for n in ones)
        for batch_id in [*self.batches, *self.known_bundles]:
            record = self.batch(batch_id)
            settled = int(self.stack.redis.bitcount(keys.settled(batch_id)))
            counts = sum(getattr(record, status) for status in STATUSES)
            assert settled == counts + granted[batch_id] <= record.total, f"{record}: {settled} settled, {granted}"
            assert record.state not in FINISHED_BATCH or counts == record.total, f"{record} has ended"

    def every_request_without_a_result_is_in_one_open_job(self) -> None:
        for batch_id in [*self.batches, *self.known_bundles]:
            record = self.batch(batch_id)
            if not record.jobs:
                continue
            carried: Counter[int] = Counter()
            for number in range(1, record.jobs + 1):
                job = self.job(job_id(batch_id, number))
                if job.stage in (Stage.CREATE, Stage.POLL, Stage.SETTLE):
                    ordinals = list(self.runtime.ledger.carried(held_job(job, record, Stage(job.stage))))
                    assert len(ordinals) == job.requests, f"{job}: {ordinals}"
                    carried.update(ordinals)
            left = set(self.runtime.ledger.unsettled(batch_id, Ordinals(first=0, last=record.total)) or ())
            assert left <= carried.keys(), f"{record}: {left - carried.keys()} are in no job"
            assert set(carried.values()) <= {1}, f"{record}: {carried}"

    def a_bundle_is_the_sum_of_its_batches(self) -> None:
        for bundle in self.known_bundles:
            record = self.batch(bundle)
            shares = self.runtime.bundles.shares(bundle, record.total)
            assert len(shares) == record.bundled
            left = {share: self.batch(share.batch_id) for share in shares if share.batch_id in self.batches}
            assert all(share.last - share.first == one.total for share, one in left.items())
            assert len(left) == record.bundled_left
            runs = sum(one.state in (BatchState.PENDING, BatchState.RUNNING) for one in left.values())
            assert runs == record.bundled_running, f"{record}: {[one.state for one in left.values()]}"

    def live_jobs_have_their_slots_and_their_tokens_and_no_others(self) -> None:
        client = self.stack.redis
        live = {name.decode() for name in cast("list[bytes]", client.zrange(keys.live("gemini"), 0, -1))}
        tokens = cast("dict[bytes, bytes]", client.hgetall(keys.live_tokens("gemini", MODEL)))
        assert live == self.admitted.keys()
        assert {name.decode(): int(count) for name, count in tokens.items()} == self.admitted
        assert len(live) <= SLOTS

    def the_census_is_right(self) -> None:
        assert counted(self.stack.redis) == scanned(self.stack.redis)
