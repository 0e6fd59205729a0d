"""Admission: how many jobs, and how many tokens of a model, may live at the provider at once, and which job is next.

The slots are the live jobs themselves: a sorted set with one member per job between create and its end. The live tokens
of a model are a hash with one field for each of these jobs. So a crash cannot leak either: the job is still on the
clock, and gives back both when it ends. Other jobs wait in the line of their model, in order of priority, then of the
share that their tenant has had, then of age: see `shares.lua`.

A limit of tokens is configured, or learned from refusals (429): see `turns.lua`, `refused.lua` and `accepted.lua`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from itertools import chain
from typing import Any, NamedTuple, cast

import msgspec
import redis

from lowtide.budgets import Period, Shortage
from lowtide.pricing import TokenPrice, price_table, token_price
from lowtide.protocol import BatchRecord, Stage, keys
from lowtide.protocol.daily_costs import CostDimension, label_name
from lowtide.shaping.tokens import ASSUMED_OUTPUT_TOKENS
from lowtide.states import OverBudget
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import scripts
from lowtide_worker.state.bundles import BundledBatch
from lowtide_worker.state.held import HeldJob, Superseded


class JobTokens(NamedTuple):
    """The estimated tokens of a job."""

    all: int
    """Those of its input."""
    least: int
    """Those that it has at least, however it is divided."""
    output: int = 0
    """Its most output tokens; counted only under a budget, as the next are."""
    least_output: int = 0
    """Those that it has at least, however it is divided."""


class Admitted(NamedTuple):
    """The part of a job that may be sent now."""

    tokens: int
    """Estimated input tokens; 0 where it must wait."""
    cost: int | None = None
    """Estimated cost by the price table, in nano-dollars; None where no budget limits it."""
    whole: bool = True
    """Whether it is the whole job."""


class JobBudget(msgspec.Struct, frozen=True, omit_defaults=True):
    """A budget that a job is under, as admit.lua takes it."""

    name: str
    limit: int
    """In nano-dollars."""
    period: Period | None = None
    """None for the `max_cost` of a batch."""
    days: list[str] = []
    """The keys of the daily costs of the period so far."""
    fields: str = ""
    """The beginning of the fields there that have the amounts of the label."""
    until: float | None = None
    """When the period ends, in Unix seconds."""
    fails: bool = False
    """Whether a job fails for which it leaves too little for good."""


class BudgetSpentError(Exception):
    """A job fails, because the `max_cost` leaves too little for good, or because no price is known."""


class UnknownPriceError(Exception):
    """A job waits, because no price is known to compare with its budgets."""


_read_shortage = msgspec.json.Decoder(Shortage).decode
_PASSING_REFUSALS = 2
_SUPERSEDED, _SPENT = -1, -2
"""The answers of admit.lua in place of tokens."""
_BUDGETS = {
    "entity_prefix": keys.entity(""),
    "reserved_prefix": keys.reserved(""),
    "waiting_for_prefix": keys.waiting_for(""),
}
"""The prefixes that budgets.lua needs."""


class Admission:
    """Redis scripts around the live and the waiting jobs of each provider."""

    def __init__(self, client: redis.Redis, settings: WorkerSettings) -> None:
        self._settings = settings
        self._admit = scripts.admit.load(client)
        self._release = scripts.release.load(client)
        self._refused = scripts.refused.load(client)
        self._accepted = scripts.accepted.load(client)
        self._free_slots = scripts.free_slots.load(client)
        self._redis = client

    def budgets(self, job: HeldJob, shared: Iterable[BundledBatch] = ()) -> list[JobBudget]:
        """The budgets that a job is under now, by the settings of this worker.

        - `shared`: the batches of a bundle whose requests the job carries. Their producers may know other budgets than
          this worker, and then batches with a budget share the job with others.
        """
        batch, found = job.batch, list[JobBudget]()
        if batch.max_cost is not None:
            found.append(JobBudget(batch.id, batch.max_cost, fails=batch.over_budget is OverBudget.FAIL))
        if not self._settings.budgets:
            return found
        today = _today(job)
        labels = chain(batch.labels.items(), *(one.labels.items() for one in shared))
        for name in dict.fromkeys(label_name(*label) for label in labels):
            for period, limit in self._settings.budgets.get(name, {}).items():
                days = [keys.costs(day) for day in period.days(today)]
                fields = f"{CostDimension.LABEL}|{name}|"
                found.append(JobBudget(name, limit, period, days, fields, period.end(today)))
        return found

    def price(self, job: HeldJob) -> TokenPrice | None:
        """The price of a token of a job's batch today; None where it is not known."""
        batch, table = job.batch, price_table(self._settings.prices)
        return token_price(table, batch.model, prompt=batch.tokens // max(1, batch.total), on=_today(job))

    def admit(self, job: HeldJob, size: JobTokens, budgets: Sequence[JobBudget] = ()) -> Admitted:
        """Gives the job a slot and tokens; returns how much of it may be sent now.

        It is less than the job where that must be divided first, and nothing if it must wait: it is woken when its turn
        comes, or when one of its budgets may have enough. Raises `Superseded`, `BudgetSpentError` and
        `UnknownPriceError`.
        """
        price = self.price(job) if budgets else TokenPrice(0, 0)
        average, cost, least_cost = _costs(job.batch, size, price or TokenPrice(0, 0))
        granted, granted_cost, shortage = self._admit(
            **self._common(job),
            batch=keys.batch(job.batch_id),
            priority=job.batch.priority,
            created=job.batch.created,
            configured=self._settings.max_tokens(job.batch.provider, job.batch.model) or "",
            tokens=size.all,
            least=size.least,
            output=size.output,
            least_output=size.least_output,
            cost=cost,
            least_cost=least_cost,
            average="" if price is None else average,
            budgets=msgspec.json.encode(budgets) if budgets else "",
            **_BUDGETS,
        )
        if granted == _SUPERSEDED:
            raise Superseded(job.member)
        if granted <= 0 and price is None:
            problem = (
                f"no price is known for {job.batch.model} on {_today(job)}; "
                "write one into the file that LOWTIDE_PRICES of the workers names"
            )
            raise BudgetSpentError(problem) if granted == _SPENT else UnknownPriceError(problem)
        if granted == _SPENT:
            raise BudgetSpentError(f"{_read_shortage(shortage)}")
        if granted == 0:
            return Admitted(0)
        whole = granted >= size.all and (granted_cost >= cost or not budgets)
        return Admitted(int(granted), int(granted_cost) if budgets else None, whole)

    def release(self, job: HeldJob) -> None:
        """Gives the slot and the tokens of a job that has ended to the next.

        Its budgets hold its cost until it is closed. Harmless for a job without them. Raises `Superseded`.
        """
        _check(job, self._release(**self._common(job), **_BUDGETS, unsent=0))

    def withdraw(self, job: HeldJob) -> None:
        """As `release`, for a job that the provider does not have: it gives back also what its budgets hold for it."""
        _check(job, self._release(**self._common(job), **_BUDGETS, unsent=1))

    def throttled(self, job: HeldJob) -> None:
        """Withdraws a job that a quota kept out, and lowers a limit. Raises `Superseded`."""
        # A first refusal may have another reason than the size of the job, such as many calls in a minute.
        often = int(job.record.throttled >= _PASSING_REFUSALS)
        lowered_ms = int(self._settings.quota_max_seconds * 1000)
        _check(job, self._refused(**self._common(job), **_BUDGETS, often=often, lowered_ms=lowered_ms))

    def succeeded(self, job: HeldJob) -> None:
        """Raises what was lowered, after the provider took a job. Raises `Superseded`."""
        _check(job, self._accepted(**self._common(job), patience=self._settings.quota_max_seconds))

    def unrecorded(self, provider: str, *, before: float) -> list[bytes]:
        """Returns the ids of jobs that hold a slot or tokens and have no record: Redis has lost it.

        - `before`: only of jobs that have had their slot since before this time, in Unix seconds.
        """
        found = set(cast("list[bytes]", self._redis.zrange(keys.live(provider), "-inf", f"({before}", byscore=True)))
        live = cast("list[bytes]", self._redis.zrange(keys.live(provider), 0, -1))
        for name in self._token_keys(provider):
            found |= cast("dict[bytes, bytes]", self._redis.hgetall(name)).keys() - set(live)
        ids = sorted(found)
        with self._redis.pipeline(transaction=False) as pipe:
            for each in ids:
                pipe.exists(keys.job("").encode() + each)
            return [each for each, there in zip(ids, pipe.execute(), strict=True) if not there]

    def free_slots(self, provider: str, jobs: Sequence[bytes]) -> int:
        """Gives the slots and tokens of jobs without a record to those that wait; returns how many there were.

        Call it only for jobs that the provider does not run: it would run more than `max_active_jobs` otherwise.
        """
        line = self._line(provider, model="")
        return int(self._free_slots(**line, tokens=self._token_keys(provider), jobs=jobs))

    def _token_keys(self, provider: str) -> list[str]:
        names = self._redis.scan_iter(f"{keys.live_tokens(provider, '')}*", count=1000, _type="hash")
        return sorted(name.decode() for name in names)

    def _common(self, job: HeldJob) -> dict[str, Any]:
        """The keys and arguments that all scripts of admission take about one job."""
        own = {"job": keys.entity(job.member), "token": job.token, "job_id": job.record.id}
        return own | self._line(job.batch.provider, model=keys.quota_name(job.batch.model))

    def _line(self, provider: str, *, model: str) -> dict[str, Any]:
        """The keys and arguments that all scripts of admission take."""
        return {
            "live": keys.live(provider),
            "limit": keys.limit(provider),
            "models": keys.models(provider),
            "served": keys.served(provider),
            "clock": keys.clock(Stage.CREATE.queue),
            "most": self._settings.max_active_jobs,
            "model": model,
            "job_hash": keys.job(""),
            "job_member": keys.job_member(""),
            "waiting_prefix": keys.waiting(provider, ""),
            "strand_prefix": keys.strand(provider, ""),
            "strands_prefix": keys.strands(provider, ""),
            "strand_of_prefix": keys.strand_of(provider, ""),
            "share_prefix": keys.share(provider, ""),
            "matched_prefix": keys.matched(provider, ""),
            "tokens_prefix": keys.live_tokens(provider, ""),
            "quota_prefix": keys.quota(provider, ""),
        }


def _today(job: HeldJob) -> date:
    return datetime.fromtimestamp(job.now(), UTC).date()


def _costs(batch: BatchRecord, size: JobTokens, price: TokenPrice) -> tuple[float, int, int]:
    """The estimated cost of an average request of the batch, of the job, and of the least that it can be."""
    output = batch.total * ASSUMED_OUTPUT_TOKENS if batch.output_tokens is None else batch.output_tokens
    whole = price.cost(batch.tokens, output)
    return whole / max(1, batch.total), price.cost(size.all, size.output), price.cost(size.least, size.least_output)


def _check(job: HeldJob, woken: int) -> None:
    if woken < 0:
        raise Superseded(job.member)
