"""The fault plan: rules that make chosen calls and jobs go wrong.

A rule is a JSON object::

    {"on": "batches.create", "kind": "drop_after", "after": 0, "times": 1,
     "probability": 1.0, "seed": 0, "match": "my-job", "params": {}}

on: the call (``batches.create``, …, see ``Call``) or ``job``, asked once at a job's creation. The calls have the
    SDK's names, whichever API they go to: a plan for one API is a plan for the other.
kind: what happens; its parameters are the struct of that name in ``fault_kinds``.
after: how many matching calls go through first.
times: how often the rule fires; null for ever.
probability, seed: fire at random, the same way on every run.
match: only calls whose path or display name contains this.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lowtide_emulator.faults.kinds import CALL_KINDS, JOB_KINDS, LIST_KINDS, Kind

Call = Literal[
    "batches.create",
    "batches.get",
    "batches.list",
    "batches.cancel",
    "batches.delete",
    "files.upload.start",
    "files.upload.chunk",
    "files.get",
    "files.list",
    "files.download",
    "files.delete",
]


class FaultRule(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One rule, as it is sent."""

    on: Call | Literal["job"]
    kind: str
    after: Annotated[int, Meta(ge=0)] = 0
    times: Annotated[int, Meta(ge=1)] | None = None
    probability: Annotated[float, Meta(ge=0, le=1)] = 1.0
    seed: int = 0
    match: str | None = None
    params: dict[str, object] = {}


class FaultRecord(msgspec.Struct, frozen=True):
    """A rule and what became of it: how many calls it looked at, how often it fired."""

    rule: FaultRule
    seen: int
    fired: int


class RuleError(ValueError):
    """A rule that cannot be understood; the message names the field."""


class _Armed:
    def __init__(self, rule: FaultRule, kind: Kind) -> None:
        self.rule = rule
        self.kind = kind
        self.seen = 0
        self.fired = 0
        self._random = random.Random(rule.seed)  # noqa: S311 - repeatable on purpose

    def fires(self, subject: str) -> bool:
        if self.rule.match is not None and self.rule.match not in subject:
            return False
        self.seen += 1
        if self.seen <= self.rule.after:
            return False
        if self.rule.times is not None and self.fired >= self.rule.times:
            return False
        if self.rule.probability < 1 and self._random.random() >= self.rule.probability:
            return False
        self.fired += 1
        return True


class FaultPlan:
    """The rules in force. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []

    def replace(self, rules: object) -> None:
        """Put these rules in the place of all former ones.

        Raises RuleError, and changes nothing, if one of them cannot be understood.
        """
        try:
            parsed = msgspec.convert(rules, list[FaultRule])
        except msgspec.ValidationError as error:
            raise RuleError(str(error)) from error
        armed = [_Armed(rule, _parse_kind(index, rule)) for index, rule in enumerate(parsed)]
        with self._lock:
            self._armed = armed

    def pick(self, on: str, subject: str) -> Sequence[Kind]:
        """Return the faults that strike this call, in the order of the rules."""
        if not self._armed:
            return ()
        with self._lock:
            return [armed.kind for armed in self._armed if armed.rule.on == on and armed.fires(subject)]

    def records(self) -> list[FaultRecord]:
        """Return each rule with how often it fired."""
        with self._lock:
            return [FaultRecord(armed.rule, armed.seen, armed.fired) for armed in self._armed]


def _parse_kind(index: int, rule: FaultRule) -> Kind:
    match rule.on:
        case "job":
            known = JOB_KINDS
        case "batches.list":
            known = CALL_KINDS | LIST_KINDS
        case _:
            known = CALL_KINDS
    if rule.kind not in known:
        raise RuleError(
            f"unknown kind {rule.kind!r} for {rule.on!r} - at `$[{index}].kind`; known: {', '.join(sorted(known))}"
        )
    try:
        return msgspec.convert(rule.params, known[rule.kind])
    except msgspec.ValidationError as error:
        text = str(error)
        if " - at `$" in text:
            text = text.replace(" - at `$", f" - at `$[{index}].params", 1)
        else:
            text += f" - at `$[{index}].params`"
        raise RuleError(text) from error
