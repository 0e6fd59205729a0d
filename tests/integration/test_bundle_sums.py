"""Whatever happens to batches that share jobs: the sums of bundles, batches, slots and tokens agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from typing import cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.census import counted
from tests.integration.bundle_checks import SLOTS, BundleChecks
from tests.integration.bundle_state import MODEL
from tests.stack import Stack

from lowtide import Request
from lowtide.protocol import Member, Stage, keys
from lowtide.states import BatchState, JobState
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import (
    Admission,
    BundledTally,
    HeldBatch,
    HeldJob,
    HeldSegment,
    JobMove,
    JobTokens,
    Ordinals,
    Retry,
    SegmentRows,
    Superseded,
    Tally,
    UnbalancedError,
    parted,
)

PER_JOB, PER_BUNDLE, ATTEMPTS = 3, 8, 2
_SETTINGS = settings(
    max_examples=8,
    stateful_step_count=20,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
"""Without shrinking, which takes minutes here: a failure prints its steps."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("sums")) as stack:
        yield stack


class SumsMachine(BundleChecks, RuleBasedStateMachine):
    """Batches of one lane: submitted, cut into jobs, admitted, answered in part, asked again, cancelled and deleted."""

    @initialize()
    def begin(self) -> None:
        self.stack.empty_redis()
        self.batches = []
        self.known_bundles = set()
        self.rows = {}
        self.admitted = {}
        self.cuts: dict[str, tuple[HeldBatch, int]] = {}
        """Bundles that workers have begun to cut, and the numbers of their jobs."""
        self.door = Admission(self.stack.redis, self.stack.worker_settings(max_active_jobs=SLOTS))

    # ---- what may happen

    @rule(size=st.integers(1, 4))
    def submit(self, size: int) -> None:
        batch = self.queue.submit([Request(key=f"{n}", contents="x") for n in range(size)], model=MODEL)
        self.batches.append(batch.id)
        self.known_bundles.add(str(self.batch(batch.id).bundle))

    @precondition(lambda self: self.open_bundles())
    @rule(data=st.data())
    def seal(self, data: st.DataObject) -> None:
        self.close_bundle(data.draw(st.sampled_from(self.open_bundles())))

    @precondition(lambda self: self.open_bundles())
    @rule(data=st.data())
    def begin_to_cut(self, data: st.DataObject) -> None:
        """A worker closes a bundle and drafts its jobs. It goes on later, unless another begins meanwhile."""
        batch_id = data.draw(st.sampled_from(self.open_bundles()))
        if cut := self.draft(batch_id):
            self.cuts[batch_id] = cut

    @precondition(lambda self: self.cuts)
    @rule(data=st.data())
    def go_on_to_cut(self, data: st.DataObject) -> None:
        bundle, jobs = self.cuts.pop(data.draw(st.sampled_from(sorted(self.cuts))))
        taken = self.stack.redis.hget(keys.entity(bundle.member), "token") != str(bundle.token).encode()
        with pytest.raises(Superseded) if taken else nullcontext():
            self.runtime.ledger.plan(bundle, jobs)

    def close_bundle(self, batch_id: str) -> None:
        if cut := self.draft(batch_id):
            self.runtime.ledger.plan(*cut)

    def draft(self, batch_id: str) -> tuple[HeldBatch, int] | None:
        """Closes a bundle and drafts its jobs; returns it, and their number. None if it stays open."""
        bundle = self.hold(keys.batch_member(batch_id))
        assert isinstance(bundle, HeldBatch)
        if not (total := self.runtime.bundles.seal(bundle)):
            return None  # jobs wait whose turn comes first
        self.runtime.bundles.spare(bundle)
        wanted = list(self.runtime.ledger.unsettled(bundle.batch_id, Ordinals(first=0, last=total)) or range(total))
        everything = Ordinals(first=0, last=total)
        cuts = (parted(everything, wanted[at : at + PER_JOB])[0] for at in range(0, len(wanted), PER_JOB))
        jobs = [some for some in cuts if some]
        self.runtime.ledger.draft(bundle, 1, jobs)
        return bundle, len(jobs)

    @precondition(lambda self: len(self.ended()) < len(self.batches))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ended = self.ended()
        self.queue.get(data.draw(st.sampled_from([one for one in self.batches if one not in ended]))).cancel()

    @precondition(lambda self: self.ended())
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.remove(data.draw(st.sampled_from(self.ended())))

    @rule(limit=st.none() | st.integers(1, 40))
    def change_quota(self, limit: int | None) -> None:
        limits = {} if limit is None else {MODEL: limit}
        changed = self.stack.worker_settings(max_active_jobs=SLOTS, max_enqueued_tokens=limits)
        self.door = Admission(self.stack.redis, changed)

    @precondition(lambda self: self.jobs())
    @rule(data=st.data(), steps=st.integers(1, 5), answered=st.integers(0, 7))
    def go_on(self, data: st.DataObject, steps: int, answered: int) -> None:
        """Takes some steps of jobs; `answered` are the bits of the first rows that come when one ends."""
        for _ in range(steps):
            if found := self.jobs():
                self.step(data.draw(st.sampled_from(found)), answered)

    def step(self, member: Member, answered: int) -> None:
        job = self.hold(member)
        assert isinstance(job, HeldJob)
        match job.record.stage:
            case Stage.CREATE:
                self.create(job)
            case Stage.POLL:
                self.door.release(job)
                self.admitted.pop(job.record.id, None)
                carried = list(self.runtime.ledger.carried(job))
                self.add_rows(job, "output", [n for at, n in enumerate(carried) if answered >> at % 3 & 1], "succeeded")
            case Stage.SETTLE if not job.record.segments_left:
                self.settle(job)

    @precondition(lambda self: self.jobs())
    @rule(data=st.data())
    def begin_with_a_job(self, data: st.DataObject) -> None:
        """A worker begins with a job, and dies or is slow."""
        self.hold(data.draw(st.sampled_from(self.jobs())))

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), dies=st.booleans())
    def deliver(self, data: st.DataObject, dies: bool) -> None:
        """A worker grants and records a segment, or dies between the two."""
        self.store(data.draw(st.sampled_from(sorted(self.rows))), dies=dies)

    def store(self, member: str, *, dies: bool) -> None:
        segment = self.hold(Member.parse(member))
        assert isinstance(segment, HeldSegment)
        ordinals, status = self.rows[segment.member]
        shares = self.shares(segment)
        if shares:
            granted = self.runtime.bundles.grant(segment, SegmentRows(ordinals), shares).results
        else:
            granted = self.runtime.ledger.grant(segment, SegmentRows(ordinals)).results
        if dies:
            return
        del self.rows[segment.member]
        results = [ordinal for ordinal, bit in zip(ordinals, granted, strict=True) if bit == ord("1")]
        of_batch = Counter(
            share.batch_id for ordinal in results for share in shares if share.first <= ordinal < share.last
        )
        parts = [BundledTally(batch_id=name, counts={status: count}) for name, count in of_batch.items()]
        tally = Tally(counts={status: len(results)}, bundled=parts)
        self.runtime.ledger.record(segment, tally, handler_waits=False)

    # ---- how it happens

    def create(self, job: HeldJob) -> None:
        if job.batch.bundled:
            self.runtime.bundles.spare(job)
        unsettled = self.runtime.ledger.unsettled(job.batch_id, self.runtime.ledger.carried(job))
        if job.batch.cancel or unsettled is None:
            self.door.release(job)
            self.admitted.pop(job.record.id, None)
            self.runtime.clock.advance(job, JobMove(stage=Stage.SETTLE, fields={"state": JobState.CANCELLED}))
            return
        tokens = 5 * job.record.requests
        if self.door.admit(job, JobTokens(tokens, tokens)).tokens:
            self.admitted[job.record.id] = tokens
            self.runtime.clock.advance(job, JobMove(stage=Stage.POLL, fields={"state": JobState.RUNNING}))
        else:
            self.runtime.clock.advance(job, JobMove(stage=Stage.CREATE, after=1))

    def settle(self, job: HeldJob) -> None:
        ledger = self.runtime.ledger
        if job.batch.bundled:
            self.runtime.bundles.spare(job)
        missing = ledger.unsettled(job.batch_id, ledger.carried(job))
        retries = []
        if missing and (job.batch.cancel or job.record.attempt >= ATTEMPTS):
            self.add_rows(job, "rest", list(missing), "cancelled" if job.batch.cancel else "failed")
            return
        if missing:
            retry = Retry.of(job.record, missing).again()
            retries = [retry.pooled(f"{retry.attempt}|{retry.losses}|0", len(missing))]
        try:
            ledger.close(job, tidy=lambda: None, retries=retries)
        except UnbalancedError:
            assert job.batch.bundle, "only a segment of the bundle may hold results that are not counted yet"

    def add_rows(self, job: HeldJob, origin: str, ordinals: list[int], status: str) -> None:
        self.runtime.ledger.segment(job, origin, [1])
        self.rows[keys.segment_member(job.record.id, job.record.segments)] = ordinals, status

    def remove(self, batch_id: str) -> None:
        """As the stage delete does."""
        bundle = self.batch(batch_id).bundle
        if bundle and self.batch(bundle).stage == Stage.SUBMIT:
            return
        self.queue.get(batch_id).delete()
        self.forget(batch_id)
        self.batches.remove(batch_id)
        if bundle and not self.batch(bundle).bundled_left and self.batch(bundle).stage == Stage.DELETE:
            self.forget(bundle)
            self.known_bundles.remove(bundle)

    def forget(self, batch_id: str) -> None:
        held = self.hold(keys.batch_member(batch_id))
        assert isinstance(held, HeldBatch)
        self.runtime.deleted.forget(held, lambda: None)
        for member in [one for one in self.rows if f":{batch_id}-" in one]:
            del self.rows[member]

    # ---- what always holds

    @invariant()
    def check(self) -> None:
        self.every_settled_request_is_counted_once()
        self.a_bundle_is_the_sum_of_its_batches()
        self.every_request_without_a_result_is_in_one_open_job()
        self.live_jobs_have_their_slots_and_their_tokens_and_no_others()
        self.the_census_is_right()

    def teardown(self) -> None:
        """All work ends, and when all batches are deleted nothing is left."""
        if not hasattr(self, "batches"):
            return
        self.change_quota(None)
        for _ in range(200):
            if not (self.jobs() or self.rows or self.open_bundles()):
                break
            self.end_some()
            self.check()
        assert self.ended() == self.batches
        for batch_id in list(self.batches):
            self.remove(batch_id)
        # Those that ended after the last of their batches was deleted.
        for bundle in sorted(self.known_bundles):
            record = self.batch(bundle)
            assert (record.bundled_left, record.stage) == (0, Stage.DELETE), f"{record}"
            assert self.is_due(bundle)
            self.forget(bundle)
        left = [name.decode() for name in cast("list[bytes]", self.stack.redis.keys("lowtide:*"))]
        kinds = (
            "batch",
            "job",
            "segment",
            "settled",
            "bundled",
            "carried",
            "counted",
            "waiting",
            "tokens",
            "live",
            "lane",
        )
        assert not [name for name in left if name.split(":")[1] in kinds], left
        assert counted(self.stack.redis) == {}

    def end_some(self) -> None:
        for rows in sorted(self.rows):
            self.store(rows, dies=False)
        for job in self.jobs():
            self.step(job, answered=7)
        for bundle in self.open_bundles():
            self.close_bundle(bundle)


@pytest.fixture
def machine(stack: Stack) -> type[SumsMachine]:
    class Machine(SumsMachine):
        pass

    Machine.stack = stack
    Machine.runtime = Runtime(stack.worker_settings())
    Machine.queue = stack.queue(share_jobs=True, linger_requests=5, max_requests_per_job=PER_BUNDLE, max_attempts=2)
    return Machine


def test_any_interleaving_keeps_the_sums_of_bundles_batches_slots_and_tokens(machine: type[SumsMachine]) -> None:
    run_state_machine_as_test(machine, settings=_SETTINGS)


@pytest.mark.parametrize("deleted_first", [True, False], ids=["its batch is deleted first", "it ends first"])
def test_a_bundle_goes_with_its_last_batch_whichever_ends_first(
    machine: type[SumsMachine], deleted_first: bool
) -> None:
    steps = machine()
    steps.begin()
    steps.submit(size=2)
    [batch], [bundle] = steps.batches, steps.known_bundles
    steps.close_bundle(bundle)
    [job] = steps.jobs()
    for _ in (Stage.CREATE, Stage.POLL):
        steps.step(job, answered=7)
    [rows] = steps.rows
    steps.store(rows, dies=False)
    assert steps.ended() == [batch]

    if not deleted_first:
        steps.step(job, answered=7)
        assert not steps.is_due(bundle)
    steps.queue.get(batch).delete()
    steps.forget(batch)
    if deleted_first:
        assert steps.batch(bundle).state is BatchState.RUNNING
        steps.step(job, answered=7)

    assert steps.is_due(bundle)
