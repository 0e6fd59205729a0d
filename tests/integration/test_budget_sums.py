"""Budgets, whatever jobs do in whatever order: nothing is sent that they do not pay for, and no cent leaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

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
from tests.integration.budget_desk import INPUT, TEAM, Desk
from tests.stack import Stack

from lowtide.protocol import keys
from lowtide.states import OverBudget
from lowtide_worker.state import (
    BudgetSpentError,
    HeldJob,
    JobTokens,
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("budgets")) as stack:
        yield stack


class BudgetMachine(RuleBasedStateMachine):
    """Jobs of two batches under one label ask, are divided, are throttled, pay and are closed in any order."""

    stack: ClassVar[Stack]
    LIMIT, DAY = 400 * INPUT, 600 * INPUT

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.jobs: dict[str, tuple[HeldJob, JobTokens]] = {}
        self.lives: set[str] = set()
        self.ended: set[str] = set()
        self.waits: set[str] = set()

    @initialize()
    def begin(self) -> None:
        self.desk = Desk(self.stack, slots=3, budgets={"team=catalog": {"day": str(self.DAY / 10**9)}})

    @rule(batch=st.sampled_from(["b0one", "b0two"]), tokens=st.integers(1, 300), least=st.integers(1, 40))
    def submit(self, batch: str, tokens: int, least: int) -> None:
        self.count += 1
        waits = OverBudget.WAIT if batch == "b0two" else OverBudget.FAIL
        job = self.desk.job(batch, self.count, labels=TEAM, max_cost=self.LIMIT, over_budget=waits, created=self.count)
        self.jobs[job.record.id] = job, JobTokens(tokens, min(least, tokens))
        self._ask(job.record.id)

    @precondition(lambda self: self.waits | self.lives)
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        self._ask(data.draw(st.sampled_from(sorted(self.waits | self.lives))))

    @precondition(lambda self: self.lives)
    @rule(data=st.data(), end=st.sampled_from(["ends", "throttled"]))
    def go_on(self, data: st.DataObject, end: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.lives)))
        job = self.jobs[name][0]
        self.lives.discard(name)
        if end == "throttled":
            self.desk.door.throttled(job)
            self.waits.add(name)
            return
        self.desk.door.release(job)
        self.ended.add(name)

    @precondition(lambda self: self.ended)
    @rule(data=st.data(), share=st.floats(0, 1))
    def close(self, data: st.DataObject, share: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.ended)))
        self.ended.discard(name)
        job, size = self.jobs[name]
        self.desk.pays(job, int((self.desk.record(job).reserved or 0) * share), rows=size.all)
        self.desk.closes(job)

    def _ask(self, name: str) -> None:
        job, size = self.jobs[name]
        try:
            granted = self.desk.admit(job, size.all, size.least)
        except BudgetSpentError:
            assert job.batch.over_budget is OverBudget.FAIL
            assert not self._under_way(job.batch_id, but=name)
            self.waits.discard(name)
            self.desk.closes(job)
            return
        self.waits.discard(name)
        self.lives.discard(name)
        (self.lives if granted else self.waits).add(name)
        if granted:
            assert size.least <= granted <= size.all
            self.jobs[name] = job, JobTokens(granted, size.least)

    def _under_way(self, batch: str, *, but: str = "") -> set[str]:
        reserved = self.desk.reserved(batch)
        return reserved.keys() - {but}

    @invariant()
    def no_budget_is_passed(self) -> None:
        """Paid never more than its estimate, a job keeps within all of its budgets."""
        spent = 0
        for batch in ("b0one", "b0two"):
            paid = int(self.stack.redis.hget(keys.batch(batch), "paid_cost") or 0)
            held = sum(self.desk.reserved(batch).values())
            assert paid + held <= self.LIMIT + 1
            spent += paid + held
        assert spent <= self.DAY + 1

    @invariant()
    def only_jobs_that_are_not_closed_hold_anything(self) -> None:
        names = self.lives | self.ended | self.waits
        for budget in ("b0one", "b0two", "team=catalog"):
            assert self.desk.reserved(budget).keys() <= names
        held = {name for batch in ("b0one", "b0two") for name in self.desk.reserved(batch)}
        assert held >= self.lives | self.ended


def test_any_interleaving_keeps_the_budgets_and_leaks_no_cent(stack: Stack) -> None:
    class Machine(BudgetMachine):
        pass

    Machine.stack = stack
    run_state_machine_as_test(Machine, settings=settings(max_examples=12, stateful_step_count=25, deadline=None))
