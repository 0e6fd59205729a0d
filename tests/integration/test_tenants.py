"""Tenants: what comes free is shared among those that wait, and nothing of a line outlives its last job."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.records import a_batch, a_job, hash_of, held_job
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch, BatchState, Request
from lowtide.protocol import Stage, job_id, keys, tenant_digest
from lowtide.store import Store
from lowtide_worker.metrics import catalogue
from lowtide_worker.metrics.snapshot import read_snapshot
from lowtide_worker.state import Admission, HeldJob, JobTokens

MODEL, OTHER_MODEL = "gemini-3.5-flash", "gemini-embedding-2"
CLOCK = keys.clock(Stage.CREATE.queue)
HOSTILE = ["\0", "a\nb", "{}", "{lowtide}:*", "x" * 1024, "é" * 1000, "0:", ":", '"', "\\", "a:b"]


@pytest.fixture(scope="module")
def module_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("tenants")) as stack:
        yield stack


@pytest.fixture
def stack(module_stack: Stack) -> Stack:
    module_stack.empty_redis()
    return module_stack


class Line:
    """Jobs of tenants that wait, and the slots that they get one after the other."""

    def __init__(self, stack: Stack, *, slots: int = 1, tokens: int | None = None) -> None:
        self.redis = stack.redis
        limits = {MODEL: tokens} if tokens else {}
        self.door = Admission(stack.redis, stack.worker_settings(max_active_jobs=slots, max_enqueued_tokens=limits))
        self.jobs: dict[str, HeldJob] = {}
        self.sizes: dict[str, JobTokens] = {}
        self.live: list[str] = []
        self._ids = itertools.count(1)

    def job(self, name: str = "", *, priority: int = 0, model: str = MODEL, tokens: int = 1, **fields: Any) -> str:
        """Records a job of a new batch, which asks for nothing yet; returns its id."""
        number = next(self._ids)
        labels = {"tenant": name} if name else {}
        fields = {"created": float(number), "tenant": tenant_digest(labels) or None} | fields
        batch = a_batch(f"b0line{number:05}", model=model, priority=priority, labels=labels, **fields)
        record = a_job(job_id(batch.id, 1), token=1, stage=Stage.CREATE)
        held = held_job(record, batch, Stage.CREATE)
        self.redis.hset(keys.batch(batch.id), mapping=hash_of(batch))
        self.redis.hset(keys.entity(held.member), mapping=hash_of(record))
        self.redis.zadd(CLOCK, {held.member: time.time() + 3600})
        self.jobs[record.id], self.sizes[record.id] = held, JobTokens(tokens, tokens)
        return record.id

    def ask(self, *ids: str) -> bool:
        """Returns whether the last of the jobs got its slot."""
        granted = False
        for one in ids:
            granted = self.door.admit(self.jobs[one], self.sizes[one]).tokens > 0
            if granted and one not in self.live:
                self.live.append(one)
        return granted

    def wait(self, name: str = "", count: int = 1, **options: Any) -> list[str]:
        """Adds jobs that ask; returns their ids."""
        ids = [self.job(name, **options) for _ in range(count)]
        self.ask(*ids)
        return ids

    def woken(self) -> list[str]:
        due = self.redis.zrangebyscore(CLOCK, "-inf", time.time())
        return [member.decode().removeprefix("job:") for member in due]  # type: ignore[union-attr]

    def end(self, which: str | None = None) -> None:
        """Ends a job, the first live one by default; the jobs that are woken ask again."""
        which = which or self.live[0]
        if which in self.live:
            self.live.remove(which)
        self.redis.zrem(CLOCK, self.jobs[which].member)
        self.door.release(self.jobs[which])
        for one in self.woken():
            self.ask(one)
            self.redis.zadd(CLOCK, {self.jobs[one].member: time.time() + 3600})

    def next(self, count: int) -> list[str]:
        """The tenants of the jobs that get the next slots."""
        found: list[str] = []
        while len(found) < count:
            before = set(self.live)
            self.end()
            found += [self.tenant(one) for one in self.live if one not in before]
        return found

    def tenant(self, one: str) -> str:
        return self.jobs[one].batch.labels.get("tenant", "")

    def left(self) -> list[str]:
        """The keys of lines."""
        kinds = ("waiting:", "strand:", "strands:", "strand-of:", "share:", "served:")
        found = [key.decode() for key in self.redis.scan_iter("lowtide:*")]
        return [key for key in found if key.startswith(tuple(f"lowtide:{kind}" for kind in kinds))]


def test_a_tenant_with_many_jobs_leaves_every_other_slot_to_another_one(stack: Stack) -> None:
    line = Line(stack)
    line.wait("large", 12)
    line.wait("small", 3)

    assert Counter(line.next(6)) == {"large": 3, "small": 3}
    assert line.next(2) == ["large", "large"]


def test_each_of_several_tenants_gets_its_part_and_the_oldest_batch_of_each_goes_first(stack: Stack) -> None:
    line = Line(stack, slots=2)
    waiting = {tenant: line.wait(tenant, 12) for tenant in ("a", "b", "")}
    order: list[str] = []
    for _ in range(15):
        before = set(line.live)
        line.end()
        order += [one for one in line.live if one not in before]

    assert max(Counter(map(line.tenant, order)).values()) - min(Counter(map(line.tenant, order)).values()) <= 1
    for ids in waiting.values():
        assert [one for one in order if one in ids] == [one for one in ids if one in order]


def test_priority_stays_above_shares(stack: Stack) -> None:
    line = Line(stack)
    line.wait("a", 3)
    line.wait("b", 2)
    line.wait("a", 2, priority=5)
    line.wait("c", 2, priority=-5)

    assert line.next(4)[:2] == ["a", "a"]
    assert line.next(2) != ["c", "c"]
    assert line.next(1) == ["c"]


def test_one_tenant_goes_by_priority_and_age_alone(stack: Stack) -> None:
    line = Line(stack)
    line.wait(count=1)
    late = line.job(priority=3)
    waiting = {one: line.jobs[one].batch for one in (line.job(priority=n % 3) for n in range(9))} | {
        late: line.jobs[late].batch
    }
    line.ask(*waiting)

    order = []
    for _ in waiting:
        line.end()
        order += line.live

    assert order == sorted(waiting, key=lambda one: (-waiting[one].priority, waiting[one].created))


def test_large_jobs_count_by_their_tokens_where_these_are_limited(stack: Stack) -> None:
    line = Line(stack, slots=50, tokens=100)
    line.wait("first", tokens=100)
    line.wait("large", 6, tokens=50)
    line.wait("small", 30, tokens=10)
    taken: Counter[str] = Counter()
    for _ in range(12):
        before = set(line.live)
        line.end()
        for one in set(line.live) - before:
            taken[line.tenant(one)] += line.sizes[one].all

    assert abs(taken["large"] - taken["small"]) <= 50


def test_new_tenants_that_come_all_the_time_do_not_keep_others_waiting(stack: Stack) -> None:
    line = Line(stack)
    line.wait("stays", 30)
    names = (f"new-{n}" for n in itertools.count())
    for _ in range(3):
        line.wait(next(names))
    order = []
    for _ in range(40):
        line.wait(next(names))
        order += line.next(1)

    # Four to nine tenants wait at a time.
    assert order.count("stays") >= 4


def test_no_credit_is_saved_up_while_nothing_waits(stack: Stack) -> None:
    line = Line(stack)
    line.wait("busy", 30)
    line.next(15)
    line.wait("idle", 10)

    order = line.next(10)

    assert abs(order.count("busy") - order.count("idle")) <= 1


def test_a_tenant_does_not_wait_for_one_that_has_many_jobs_of_another_model(stack: Stack) -> None:
    line = Line(stack)
    line.wait("large", 12)
    line.wait("small", 2, model=OTHER_MODEL)
    line.wait("large", 2, model=OTHER_MODEL)

    assert line.next(7).count("small") == 2
    line.next(8)
    line.end()
    assert not line.left()


def test_a_job_that_waited_in_the_line_of_an_earlier_version_keeps_its_turn(stack: Stack) -> None:
    line = Line(stack)
    line.wait("holds")
    old = [line.job(tenant, tenant=None) for tenant in ("large", "large", "large", "small")]
    # As its workers write and read it: the line of all jobs, and nothing else.
    stack.redis.zadd(keys.waiting("gemini", MODEL), {one: line.jobs[one].batch.created for one in old})
    for one in old:
        stack.redis.hset(keys.job(one), mapping={"tokens": 1, "least": 1, "awaits": "slot"})
    line.wait("new", 1)

    assert sorted(line.next(3)) == ["large", "new", "small"]
    gone, another = sorted(set(old) & set(_in_line(stack)))
    stack.redis.zrem(keys.waiting("gemini", MODEL), gone)
    stack.redis.hset(keys.job(gone), mapping={"stage": Stage.POLL, "awaits": ""})
    line.end()
    assert line.live == [another]
    line.end()
    assert not line.left()


def test_the_next_job_is_woken_where_an_earlier_version_has_woken_the_oldest(stack: Stack) -> None:
    line = Line(stack)
    line.wait("holds")
    large, [small] = line.wait("large", 3), line.wait("small")
    line.end()
    # As its workers release a job: the oldest job is due, though it is not the next one.
    stack.redis.zrem(keys.live("gemini"), *line.live)

    assert not line.ask(large[1])

    assert line.woken() == [small]


def test_an_earlier_version_finds_all_that_wait_in_the_order_of_their_age(stack: Stack) -> None:
    line = Line(stack)
    line.wait("holds")
    waiting = line.wait("a", 3) + line.wait("b", 2) + line.wait("a", 1, priority=1)

    assert _in_line(stack) == [waiting[-1], *waiting[:-1]]


@pytest.mark.parametrize(
    "lost",
    [
        keys.models("gemini"),
        keys.waiting("gemini", MODEL),
        keys.strands("gemini", MODEL),
        keys.strand("gemini", keys.strand_name(0, tenant_digest({"tenant": "a"})), MODEL),
        keys.strand_of("gemini", MODEL),
        keys.share("gemini", MODEL),
    ],
)
def test_jobs_keep_their_turn_where_a_key_of_their_line_was_deleted(stack: Stack, lost: str) -> None:
    line = Line(stack)
    line.wait("holds")
    line.wait("a", 3)
    line.wait("b", 3)

    assert stack.redis.delete(lost)

    found = line.next(6)
    assert found in (["a", "b"] * 3, ["b", "a"] * 3)
    line.end()
    assert not line.left()


def test_values_that_are_no_numbers_of_a_line_stop_no_job(stack: Stack) -> None:
    line = Line(stack)
    line.wait("holds")
    line.wait("a", 2)
    stack.redis.zadd(keys.waiting("gemini", MODEL), {"x": float("-inf"), "y-1": float("inf")})
    stack.redis.hset(keys.strand_of("gemini", MODEL), "z", "no strand")
    stack.redis.hset(keys.share("gemini", MODEL), "0", "nan")
    stack.redis.zadd(keys.strands("gemini", MODEL), {"no strand": float("-inf")})

    line.wait("b", 1)

    assert sorted(line.next(3)) == ["a", "a", "b"]
    line.end()
    assert not line.left()


def test_a_job_whose_strand_is_not_known_any_more_does_not_stop_redis(stack: Stack) -> None:
    line = Line(stack)
    line.wait("holds")
    [dead], [waits] = line.wait("a"), line.wait("b")
    stack.redis.delete(keys.strand_of("gemini", MODEL), keys.job(dead))
    stack.redis.zrem(keys.waiting("gemini", MODEL), dead)

    line.end()

    assert line.live == [waits]
    line.end()
    assert not line.left()


def test_a_job_gets_its_turn_where_an_earlier_version_has_taken_another_one_out_of_the_line(stack: Stack) -> None:
    line = Line(stack)
    line.wait("holds")
    [taken], old = line.wait("a"), line.job("b", tenant=None)
    stack.redis.zrem(keys.waiting("gemini", MODEL), taken)
    stack.redis.hset(keys.job(taken), "awaits", "")
    stack.redis.zadd(keys.waiting("gemini", MODEL), {old: line.jobs[old].batch.created})

    line.end()

    assert line.live == [old]


def test_names_of_tenants_may_be_anything_and_keys_stay_short(stack: Stack) -> None:
    line = Line(stack)
    line.wait("holds")
    for name in HOSTILE:
        line.wait(name, 1)
        line.wait(name, 1, tenant=None)  # as an earlier version records it

    assert stack.redis.zcard(keys.strands("gemini", MODEL)) == len(HOSTILE)
    assert max(map(len, line.left())) < 150
    assert sorted(line.next(len(HOSTILE))) == sorted(HOSTILE)
    line.next(len(HOSTILE))
    line.end()
    assert not line.left()


def test_many_tenants_cost_no_further_commands(stack: Stack) -> None:
    cost = {}
    for tenants in (1, 300):
        stack.empty_redis()
        line = Line(stack)
        line.wait("holds")
        for n in range(300):
            line.wait(f"t{n % tenants}")
        line.next(2)
        before = _commands(stack)
        line.next(10)
        cost[tenants] = _commands(stack) - before
    assert cost[300] <= cost[1] + 10 * 6


def _in_line(stack: Stack) -> list[str]:
    return [one.decode() for one in stack.redis.zrange(keys.waiting("gemini", MODEL), 0, -1)]  # type: ignore[union-attr]


def _commands(stack: Stack) -> int:
    stats = stack.redis.info("commandstats")
    return sum(each["calls"] for each in stats.values())


def test_the_place_in_the_line_is_that_of_the_share(stack: Stack) -> None:
    line = Line(stack)
    line.wait("holds")
    large, small = line.wait("large", 20), line.wait("small", 2)
    line.wait("small", 1, priority=1)
    store = Store(stack.settings())

    def place(one: str) -> int | None:
        stack.redis.hset(keys.batch(line.jobs[one].batch_id), mapping={"total": 1, "jobs": 1, "open": 1})
        found = store.status(line.jobs[one].batch_id).waiting
        return found.position if found else None

    assert [place(one) for one in (large[0], small[0], large[1], small[1], large[19])] == [2, 3, 4, 5, 23]
    found = read_snapshot(stack.redis, stack.worker_settings()).values
    assert found[catalogue.WAITING_JOBS]["gemini",] == 23


class TenantsMachine(RuleBasedStateMachine):
    """Jobs of some tenants arrive, get slots, end, and are cancelled or deleted, in any order."""

    stack: ClassVar[Stack]

    @initialize(slots=st.integers(1, 3), tokens=st.sampled_from([None, None, 60]))
    def begin(self, slots: int, tokens: int | None) -> None:
        self.stack.empty_redis()
        self.line = Line(self.stack, slots=slots, tokens=tokens)
        self.slots, self.tokens = slots, tokens
        self.waits: list[str] = []
        self.ahead: dict[tuple[Strand, Strand], float] = {}
        """How much more one tenant got than another since jobs of both wait."""

    @rule(
        tenant=st.sampled_from(["", "a", "b", "c"]),
        model=st.sampled_from([MODEL, MODEL, OTHER_MODEL]),
        priority=st.sampled_from([0, 0, 0, 3]),
        tokens=st.integers(1, 40),
        count=st.integers(1, 4),
    )
    def arrive(self, tenant: str, model: str, priority: int, tokens: int, count: int) -> None:
        before = self._strands()
        ids = [self.line.job(tenant, model=model, priority=priority, tokens=tokens) for _ in range(count)]
        self.waits += ids
        self.line.ask(*ids)
        self._compare(before)

    @precondition(lambda self: self.line.live)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        before = self._strands()
        self.line.end(data.draw(st.sampled_from(self.line.live)))
        self._compare(before)

    @precondition(lambda self: self.waits)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        before = self._strands()
        self.waits.remove(which := data.draw(st.sampled_from(self.waits)))
        self.line.end(which)
        self._compare(before)

    @precondition(lambda self: self.waits)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.waits.remove(which := data.draw(st.sampled_from(self.waits)))
        self.stack.redis.delete(keys.job(which), keys.batch(self.line.jobs[which].batch_id))
        self.stack.redis.zrem(CLOCK, keys.job_member(which))

    def _strands(self) -> set[Strand]:
        return {self._strand(one) for one in self.waits}

    def _strand(self, one: str) -> Strand:
        batch = self.line.jobs[one].batch
        return batch.model, batch.priority, batch.labels.get("tenant", "")

    def _cost(self, one: str) -> float:
        limited = self.tokens and self.line.jobs[one].batch.model == MODEL
        return max(1 / self.slots, self.line.sizes[one].all / self.tokens if limited and self.tokens else 0)

    def _compare(self, before: set[Strand]) -> None:
        granted = [one for one in self.waits if one in self.line.live]
        self.waits = [one for one in self.waits if one not in self.line.live]
        got: Counter[Strand] = Counter()
        for one in granted:
            got[self._strand(one)] += self._cost(one)  # type: ignore[assignment]
        wait = before & self._strands()
        pairs = {(one, other) for one in wait for other in wait if one < other and one[:2] == other[:2]}
        self.ahead = {pair: self.ahead.get(pair, 0) + got[pair[0]] - got[pair[1]] for pair in pairs}
        most = max(1 / self.slots, 40 / self.tokens if self.tokens else 0)
        # Each is within one job of the half.
        assert all(abs(ahead) <= 2 * most + 0.001 for ahead in self.ahead.values()), self.ahead

    @invariant()
    def all_that_waits_is_in_one_strand(self) -> None:
        client = self.stack.redis
        for model in (MODEL, OTHER_MODEL):
            line = client.zrange(keys.waiting("gemini", model), 0, -1)
            assert {one.decode() for one in line} >= {one for one in self.waits if self._strand(one)[0] == model}  # type: ignore[union-attr]
            strands = [key for key in self.line.left() if key.startswith("lowtide:strand:") and key.endswith(model)]
            assert client.hlen(keys.strand_of("gemini", model)) == len(line) == sum(map(client.zcard, strands))
            assert client.zcard(keys.strands("gemini", model)) == len(strands)
            assert client.hlen(keys.share("gemini", model)) == len({key.split(":")[3] for key in strands})

    def teardown(self) -> None:
        while self.line.live:
            self.line.end()
        assert set(self.waits) <= set(self.line.jobs) - set(self.line.woken())
        assert not self.line.left()


def test_small_batches_share_jobs_only_within_their_tenant(stack: Stack) -> None:
    queue = stack.queue(share_jobs=True)
    labels = [{}, {"tenant": "a"}, {"tenant": "a", "n": "1"}, {"tenant": "b"}, {"n": "2"}]
    batches = [queue.submit([Request(key="k", contents="x")], model=MODEL, labels=each) for each in labels]

    none, a, also_a, b, also_none = (batch.status().bundle for batch in batches)

    assert (a, none) == (also_a, also_none)
    assert len({none, a, b}) == 3


def test_a_tenant_with_many_batches_does_not_keep_the_batch_of_another_one_waiting(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        stack.worker("-P", "threads", "-c", "4", LOWTIDE_MAX_ACTIVE_JOBS="2")
        queue, line = stack.queue(), keys.waiting("gemini", MODEL)

        def submit(tenant: str, count: int) -> list[Batch]:
            one = [Request(key="k", contents="x")]
            labels = {"tenant": tenant}
            return queue.submit_many(
                {"requests": one, "model": MODEL, "share": False, "labels": labels} for _ in range(count)
            )

        with stack.held_jobs():
            large = submit("large", 60)
            wait_until(lambda: stack.redis.zcard(line) == 58, what="all others wait")
            [small] = submit("small", 1)
            wait_until(lambda: stack.redis.zcard(line) == 59, what="so does that of the other tenant")
        assert small.wait(timeout=180).succeeded == 1

        created = sorted(stack.emulator.jobs(), key=lambda job: job.created)
        assert [small.id in job.display_name for job in created].index(True) < 6
        assert sum(batch.status().state is BatchState.COMPLETED for batch in large) < 30


Strand = tuple[str, int, str]
"""A model, a priority and a tenant."""


def test_whatever_happens_no_tenant_gets_more_than_its_part_and_nothing_is_left(stack: Stack) -> None:
    class Machine(TenantsMachine):
        pass

    Machine.stack = stack
    run_state_machine_as_test(Machine, settings=settings(max_examples=15, stateful_step_count=20, deadline=None))
