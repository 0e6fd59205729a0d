"""Shares of tenants: none gets more than its part, and nothing of a line outlives its last job."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

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
from tests.integration.tenant_line import CLOCK, MODEL, OTHER_MODEL, Line
from tests.stack import Stack

from lowtide.protocol import keys

Strand = tuple[str, int, str]
"""A model, a priority and a tenant."""


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


def test_whatever_happens_no_tenant_gets_more_than_its_part_and_nothing_is_left(emptied: Stack) -> None:
    class Machine(TenantsMachine):
        pass

    Machine.stack = emptied
    run_state_machine_as_test(Machine, settings=settings(max_examples=15, stateful_step_count=20, deadline=None))
