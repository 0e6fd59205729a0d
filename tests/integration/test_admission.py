"""Slots and tokens: whatever jobs ask for, end, are refused or divided, the sums hold and no job is forgotten."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
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
from msgspec.structs import replace
from tests.records import a_batch, a_job, hash_of, held_job
from tests.stack import Stack

from lowtide.protocol import Quota, Stage, job_id, keys, read_quota
from lowtide_worker.state import Admission, Clock, HeldJob, JobTokens, Move

MODELS = ("gemini-3.5-flash", "gemini-embedding-2")
SLOTS = 3


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("admission")) as stack:
        yield stack


def admission(stack: Stack, *, slots: int = SLOTS, **limits: int) -> Admission:
    """Admission with limits for models, `-` and `.` in their names written as `_`."""
    named = {model: limits[name] for model in MODELS if (name := _plain(model)) in limits}
    return Admission(stack.redis, stack.worker_settings(max_active_jobs=slots, max_enqueued_tokens=named))


def _plain(model: str) -> str:
    return model.replace("-", "_").replace(".", "_")


def new_job(stack: Stack, name: str, *, model: str = MODELS[0], priority: int = 0, age: float = 1.0) -> HeldJob:
    batch = a_batch(name, model=model, priority=priority, created=age)
    record = a_job(job_id(name, 1), token=1, stage=Stage.CREATE)
    held = held_job(record, batch, Stage.CREATE)
    stack.redis.hset(keys.entity(held.member), mapping=hash_of(record))
    stack.redis.zadd(keys.clock(Stage.CREATE.queue), {held.member: time.time() + 3600})
    return held


def is_due(stack: Stack, job: HeldJob) -> bool:
    due = stack.redis.zscore(keys.clock(Stage.CREATE.queue), job.member)
    return due is not None and float(str(due)) <= time.time()


def quota(stack: Stack, model: str = MODELS[0]) -> Quota:
    return read_quota(stack.redis.get(keys.quota("gemini", model)))  # type: ignore[arg-type]


def live(stack: Stack, model: str = MODELS[0]) -> dict[str, int]:
    found = stack.redis.hgetall(keys.live_tokens("gemini", model))
    return {name.decode(): int(tokens) for name, tokens in found.items()}  # type: ignore[union-attr]


def test_a_job_that_lacks_tokens_does_not_stand_before_one_of_another_model(stack: Stack) -> None:
    stack.empty_redis()
    door = admission(stack, slots=2, gemini_3_5_flash=100)
    has_them, lacks_them = (new_job(stack, f"b0one{n}", age=n) for n in (1, 2))
    other = new_job(stack, "b0other", model=MODELS[1], age=3)

    assert door.admit(has_them, JobTokens(90, 1)).tokens == 90
    assert door.admit(lacks_them, JobTokens(90, 1)).tokens == 0
    assert stack.redis.hget(keys.entity(lacks_them.member), "awaits") == b"tokens"
    assert door.admit(other, JobTokens(10_000, 1)).tokens == 10_000

    door.release(has_them)

    assert is_due(stack, lacks_them)
    assert door.admit(lacks_them, JobTokens(90, 1)).tokens == 90


def test_a_job_is_cut_to_what_is_free_if_that_is_no_crumb(stack: Stack) -> None:
    stack.empty_redis()
    door = admission(stack, gemini_3_5_flash=100)
    first, second, third = (new_job(stack, f"b0cut{n}", age=n) for n in (1, 2, 3))

    assert door.admit(first, JobTokens(70, 1)).tokens == 70
    assert door.admit(second, JobTokens(500, 40)).tokens == 0  # its first request alone has more than are free
    assert door.admit(third, JobTokens(10, 1)).tokens == 0  # no job overtakes those before it
    door.release(second)
    assert is_due(stack, third)
    assert door.admit(second, JobTokens(500, 1)).tokens == 30
    assert door.admit(second, JobTokens(25, 1)).tokens == 25  # after it was divided
    assert live(stack) == {first.record.id: 70, second.record.id: 25}


def test_the_job_with_the_highest_priority_gets_what_comes_free(stack: Stack) -> None:
    stack.empty_redis()
    door = admission(stack, gemini_3_5_flash=100)
    holder, early, urgent = (
        new_job(stack, name, age=age, priority=priority)
        for name, age, priority in (("b0holder", 1, 0), ("b0early", 2, 0), ("b0urgent", 3, 10))
    )
    assert door.admit(holder, JobTokens(100, 1)).tokens == 100
    assert door.admit(early, JobTokens(100, 1)).tokens == door.admit(urgent, JobTokens(100, 1)).tokens == 0

    door.release(holder)

    assert (is_due(stack, urgent), is_due(stack, early)) == (True, False)
    assert door.admit(early, JobTokens(100, 1)).tokens == 0
    assert door.admit(urgent, JobTokens(100, 1)).tokens == 100


@pytest.mark.parametrize(
    ("stage", "cancelled", "due"),
    [
        pytest.param(Stage.POLL, False, False, id="created"),
        pytest.param(Stage.CREATE, False, True, id="still-waiting"),
        pytest.param(Stage.POLL, True, True, id="created-and-cancelled"),
    ],
)
def test_a_turn_that_comes_while_a_job_is_at_work_counts_only_while_it_waits(
    stack: Stack, stage: Stage, cancelled: bool, due: bool
) -> None:
    stack.empty_redis()
    door, clock = admission(stack, slots=1), Clock(stack.redis, stack.worker_settings())
    first, second = (new_job(stack, f"b0turn{n}", age=n) for n in (1, 2))
    assert door.admit(first, JobTokens(1, 1)).tokens == 1
    assert door.admit(second, JobTokens(1, 1)).tokens == 0
    # It has been woken, and is at work, when its turn comes once more.
    stack.redis.hset(keys.entity(second.member), "busy", "1")
    if cancelled:
        stack.redis.hset(keys.entity(second.member), "woken", "1")
    door.release(first)

    clock.advance(second, Move(stage=stage, after=900))

    assert is_due(stack, second) == due


def test_a_limit_is_learned_from_refusals_and_goes_up_with_success(stack: Stack) -> None:
    stack.empty_redis()
    door = admission(stack)
    large, small = new_job(stack, "b0large"), new_job(stack, "b0small", age=2)
    assert door.admit(large, JobTokens(1000, 1)).tokens == 1000
    often = held_job(replace(large.record, throttled=2), large.batch, Stage.CREATE)
    door.throttled(large)
    assert quota(stack).limit is None, "the first refusal may have another reason"
    assert door.admit(often, JobTokens(1000, 1)).tokens == 1000
    door.throttled(often)
    assert quota(stack).limit == 500
    assert door.admit(often, JobTokens(1000, 1)).tokens == 500
    door.succeeded(often)
    assert quota(stack).limit == 500, "it was lowered a moment ago"

    assert door.admit(small, JobTokens(100, 1)).tokens == 0
    stack.redis.set(keys.quota("gemini", MODELS[0]), b'{"learned": 500, "lowered": 1}')
    door.succeeded(often)
    assert quota(stack).limit == 563
    assert stack.redis.get(keys.limit("gemini")) is not None, "the first refusal lowered the number of slots"


def test_a_refusal_beside_live_jobs_lowers_the_limit_to_what_was_live(stack: Stack) -> None:
    stack.empty_redis()
    door = admission(stack)
    lives, refused = new_job(stack, "b0lives"), new_job(stack, "b0refused", age=2)
    assert door.admit(lives, JobTokens(800, 1)).tokens == 800
    assert door.admit(refused, JobTokens(300, 1)).tokens == 300

    door.throttled(refused)

    assert quota(stack).limit == 800
    assert live(stack) == {lives.record.id: 800}
    assert stack.redis.get(keys.limit("gemini")) is None, "jobs of other models have their slots"
    assert door.admit(refused, JobTokens(300, 1)).tokens == 0


@pytest.mark.parametrize(("reported", "needs"), [(40_000, 1.6), (1, 0.68), (10**9, 4.0)], ids=["more", "less", "far"])
def test_reported_tokens_correct_the_estimates(stack: Stack, reported: int, needs: float) -> None:
    stack.empty_redis()
    stored = f'{{"estimated": 21250, "reported": {reported}, "configured": 1000000}}'
    stack.redis.set(keys.quota("gemini", MODELS[0]), stored.encode())
    door = admission(stack, gemini_3_5_flash=1_000_000)
    job = new_job(stack, "b0ratio")

    assert door.admit(job, JobTokens(1000, 1)).tokens == 1000

    ratio = max(0.25, min(4.0, (reported + 10_000) / 31_250))
    assert live(stack) == {job.record.id: math.ceil(1000 * ratio)}
    assert ratio == pytest.approx(needs, rel=0.6)


@pytest.mark.parametrize(
    "stored",
    [
        b'{"learned":"x"}',
        b'{"learned":null,"configured":null}',
        b'{"learned":[],"taken":{},"lowered":"x"}',
        b'{"learned":NaN}',
        b'{"learned":1e999}',
        b'{"learned":-5}',
        b'{"estimated":"a","reported":{}}',
        b'{"estimated":-10000,"reported":NaN}',
        b"null",
        b"x",
        b"",
    ],
    ids=ascii,
)
def test_a_damaged_quota_is_none(stack: Stack, stored: bytes) -> None:
    stack.empty_redis()
    stack.redis.set(keys.quota("gemini", MODELS[0]), stored)
    door = admission(stack)
    first, second = (new_job(stack, f"b0odd{n}", age=n) for n in (1, 2))

    for job in (first, second):
        assert door.admit(job, JobTokens(1000, 1)).tokens == 1000
    assert live(stack) == {first.record.id: 1000, second.record.id: 1000}

    door.succeeded(first)
    door.throttled(second)
    assert quota(stack).limit == 1000


@pytest.mark.parametrize("stored", ["", "x", "nan", "0", "-3", "1e999"])
def test_a_limit_that_is_no_number_of_slots_lowers_nothing(stack: Stack, stored: str) -> None:
    stack.empty_redis()
    stack.redis.set(keys.limit("gemini"), stored)
    door = admission(stack, slots=1)
    first, second = (new_job(stack, f"b0slot{n}", age=n) for n in (1, 2))

    assert [door.admit(job, JobTokens(1, 1)).tokens for job in (first, second)] == [1, 0]
    door.succeeded(first)
    door.release(first)

    assert door.admit(second, JobTokens(1, 1)).tokens == 1


def test_live_tokens_that_are_no_number_count_as_none(stack: Stack) -> None:
    stack.empty_redis()
    door = admission(stack, gemini_3_5_flash=100)
    first, second = (new_job(stack, f"b0tokens{n}", age=n) for n in (1, 2))
    assert door.admit(first, JobTokens(90, 1)).tokens == 90
    for odd in ("x", "nan", "-1"):
        stack.redis.hset(keys.live_tokens("gemini", MODELS[0]), first.record.id, odd)
        assert door.admit(first, JobTokens(90, 1)).tokens == 90
        assert door.admit(second, JobTokens(90, 1)).tokens == 90
        door.throttled(second)
        stack.redis.delete(keys.quota("gemini", MODELS[0]))


class AdmissionMachine(RuleBasedStateMachine):
    """Jobs of two models ask, are divided, refused, taken and end in any order, while limits change."""

    stack: ClassVar[Stack]

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, HeldJob] = {}
        self.sizes: dict[str, JobTokens] = {}
        self.waits: set[str] = set()
        self.lives: set[str] = set()
        self.limits: dict[str, int] = {}
        self.count = 0

    @initialize()
    def begin(self) -> None:
        self.stack.empty_redis()
        self.door = admission(self.stack)

    @rule(
        limits=st.fixed_dictionaries({}, optional={_plain(model): st.integers(1, 400) for model in MODELS}),
    )
    def change_limits(self, limits: dict[str, int]) -> None:
        self.door = admission(self.stack, **limits)

    @rule(
        model=st.sampled_from(MODELS),
        priority=st.sampled_from([0, 0, 5]),
        tokens=st.integers(1, 500),
        least=st.integers(1, 60),
    )
    def submit(self, model: str, priority: int, tokens: int, least: int) -> None:
        self.count += 1
        name = f"b0m{self.count:03}"
        self.jobs[name] = new_job(self.stack, name, model=model, priority=priority, age=self.count)
        self.sizes[name] = JobTokens(tokens, min(least, tokens))
        self._ask(name)

    @precondition(lambda self: self.waits | self.lives)
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        self._ask(data.draw(st.sampled_from(sorted(self.waits | self.lives))))

    @precondition(lambda self: self.lives)
    @rule(data=st.data(), end=st.sampled_from(["ends", "refused", "refused often", "taken"]))
    def go_on(self, data: st.DataObject, end: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.lives)))
        job = self.jobs[name]
        if end == "taken":
            self.door.succeeded(job)
            return
        self.lives.discard(name)
        if end == "ends":
            self.door.release(job)
            return
        throttled = 2 if end == "refused often" else 0
        self.door.throttled(held_job(replace(job.record, throttled=throttled), job.batch, Stage.CREATE))
        self._ask(name)

    @precondition(lambda self: self.waits)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.waits)))
        self.waits.discard(name)
        self.door.release(self.jobs[name])

    def _ask(self, name: str) -> None:
        size, lived = self.sizes[name], name in self.lives
        granted = self.door.admit(self.jobs[name], size).tokens
        self.waits.discard(name)
        self.lives.discard(name)
        if not granted:
            self.waits.add(name)
            return
        self.lives.add(name)
        assert size.least <= granted <= size.all
        tokens, limit = live(self.stack, model := self.jobs[name].batch.model), quota(self.stack, model).limit
        assert lived or limit is None or len(tokens) == 1 or sum(tokens.values()) <= limit
        if granted < size.all:
            # As it is divided: the first requests that fit.
            self.sizes[name] = JobTokens(granted, size.least)

    @invariant()
    def the_store_knows_who_lives_and_who_waits(self) -> None:
        client = self.stack.redis
        assert _ids(client.zrange(keys.live("gemini"), 0, -1)) == {job_id(name, 1) for name in self.lives}
        for model in MODELS:
            mine = {job_id(name, 1) for name in self.jobs if self.jobs[name].batch.model == model}
            assert live(self.stack, model).keys() == mine & {job_id(name, 1) for name in self.lives}
            waits = _ids(client.zrange(keys.waiting("gemini", model), 0, -1))
            assert waits == mine & {job_id(name, 1) for name in self.waits}

    @invariant()
    def somebody_goes_on_wherever_there_is_room(self) -> None:
        """If nothing of a model lives and a slot is free, its first job is not kept waiting."""
        if len(self.lives) >= 1 or not self.waits:
            return
        first = min(self.waits, key=lambda name: (-self.jobs[name].batch.priority, self.jobs[name].batch.created))
        assert is_due(self.stack, self.jobs[first])


def _ids(members: Any) -> set[str]:
    return {member.decode() for member in members}


def test_any_interleaving_keeps_the_sums_and_forgets_no_job(stack: Stack) -> None:
    class Machine(AdmissionMachine):
        pass

    Machine.stack = stack
    run_state_machine_as_test(Machine, settings=settings(max_examples=12, stateful_step_count=25, deadline=None))
