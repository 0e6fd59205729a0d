"""The fault rules: they make chosen calls and jobs fail.

A rule is a JSON object::

    {"on": "batches.create", "kind": "drop_after", "after": 0, "times": 1,
     "probability": 1.0, "seed": 0, "match": "my-job", "params": {}}

on: the call (`batches.create`, …; see `Call`); `job` for a rule that is applied when a job is created; or
    `webhooks.send` for the event of a webhook. Calls have the SDK's names on both APIs, so a rule for one API works for
    the other.
kind: the kind of fault: a struct in `kinds`.
params: the parameters of the kind: the fields of its struct.
after: the number of matching calls that succeed first.
times: the number of times that the rule fires; null for no limit.
probability, seed: the chance that a rule fires, and the seed of a random order that is the same on every run.
match: the rule matches only calls whose path or display name contains this text.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lowtide_emulator.faults.kinds import CALL_KINDS, JOB_KINDS, LIST_KINDS, WEBHOOK_KINDS, Kind

Call = Literal[
    "batches.create",
    "batches.get",
    "batches.list",
    "batches.cancel",
    "batches.delete",
    "files.upload.start",
    "files.upload.chunk",
    "files.get",
    "files.register",
    "files.list",
    "files.download",
    "files.delete",
    "datasets.create",
    "datasets.get",
    "datasets.delete",
    "webhooks.create",
    "webhooks.list",
    "webhooks.get",
    "webhooks.update",
    "webhooks.delete",
    "webhooks.ping",
    "webhooks.rotate",
]


class FaultRule(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A rule as it is sent."""

    on: Call | Literal["job", "webhooks.send"]
    kind: str
    after: Annotated[int, Meta(ge=0)] = 0
    times: Annotated[int, Meta(ge=1)] | None = None
    probability: Annotated[float, Meta(ge=0, le=1)] = 1.0
    seed: int = 0
    match: str | None = None
    params: dict[str, object] = {}


_decode_rules = msgspec.json.Decoder(list[dict[str, object]]).decode
# `convert` in two threads at once must not build these types.
_built = [msgspec.json.Decoder(FaultRule)]
_built_kinds = [
    msgspec.json.Decoder(kind)
    for kinds in (CALL_KINDS, LIST_KINDS, JOB_KINDS, WEBHOOK_KINDS)
    for kind in kinds.values()
]


def load_rules(path: Path) -> list[Mapping[str, object]]:
    """Returns the rules of a JSON file, not yet checked. Raises ValueError."""
    try:
        return list(_decode_rules(path.read_bytes()))
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} is not a JSON list of fault rules: {error}") from error


class FaultRecord(msgspec.Struct, frozen=True):
    """A rule, the number of calls that it matched, and the number of times that it fired."""

    rule: FaultRule
    seen: int
    fired: int


class RuleError(ValueError):
    """A rule is not valid; the message names the field."""


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
    """The present rules. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []

    def replace(self, rules: object) -> None:
        """Replaces all rules.

        Raises RuleError, and changes nothing, if a rule is not valid.
        """
        try:
            parsed = msgspec.convert(rules, list[FaultRule])
        except msgspec.ValidationError as error:
            raise RuleError(str(error)) from error
        armed = [_Armed(rule, _parse_kind(index, rule)) for index, rule in enumerate(parsed)]
        with self._lock:
            self._armed = armed

    def pick(self, on: str, subject: str) -> Sequence[Kind]:
        """Returns the faults that hit a call, in the order of the rules."""
        if not self._armed:
            return ()
        with self._lock:
            return [armed.kind for armed in self._armed if armed.rule.on == on and armed.fires(subject)]

    def records(self) -> list[FaultRecord]:
        """Returns each rule with its counters."""
        with self._lock:
            return [FaultRecord(armed.rule, armed.seen, armed.fired) for armed in self._armed]


def _parse_kind(index: int, rule: FaultRule) -> Kind:
    match rule.on:
        case "job":
            known = JOB_KINDS
        case "webhooks.send":
            known = WEBHOOK_KINDS
        case "batches.list":
            known = CALL_KINDS | LIST_KINDS
        case _:
            known = CALL_KINDS
    if rule.kind not in known:
        raise RuleError(
            f"unknown kind {rule.kind!r} for {rule.on!r} - at `$[{index}].kind`; known: {', '.join(sorted(known))}"
        )
    try:
        kind = known[rule.kind]
        return msgspec.convert(rule.params, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        if " - at `$" in text:
            text = text.replace(" - at `$", f" - at `$[{index}].params", 1)
        else:
            text += f" - at `$[{index}].params`"
        raise RuleError(text) from error
