"""The present level of each budget: what was paid of it, what jobs hold of it, and how many jobs wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple

import redis

from lowtide.budgets import Budget, Period
from lowtide.protocol import keys
from lowtide.protocol.daily_costs import CostDimension
from lowtide.store import scripts


class BudgetLevel(NamedTuple):
    """One budget in its present period. Amounts are in nano-dollars."""

    budget: str
    """The label and its value, as `team=catalog`."""
    period: Period
    limit: int
    spent: int
    """Paid in the period, for rows whose price is known."""
    reserved: int
    """Estimated cost of the jobs under way; it counts for each period of the budget."""
    waiting: int
    """Jobs that wait for the budget, of whichever period."""

    @property
    def left(self) -> int:
        """The amount that further jobs may cost."""
        return max(0, self.limit - self.spent - self.reserved)


def budget_levels(client: redis.Redis, budgets: Mapping[str, Budget], today: date) -> list[BudgetLevel]:
    """Returns the level of each budget in each of its periods. Makes one call, with at most 32 commands; none for none.

    - `today`: the UTC day by Redis's clock.

    A key that another program has changed counts as empty. Raises `redis.RedisError` where Redis does not serve.
    """
    if not budgets:
        return []
    monthly = any(Period.MONTH in limits for limits in budgets.values())
    days = Period.MONTH.days(today) if monthly else [today]
    with client.pipeline(transaction=False) as pipe:
        for day in days:
            pipe.hmget(keys.costs(day), [f"{CostDimension.LABEL}|{name}|cost" for name in budgets])
        scripts.holdings.load(client).within(pipe)(
            reserved=[keys.reserved(name) for name in budgets],
            job_hash=keys.job(""),
            waiting_for=[keys.waiting_for(name) for name in budgets],
        )
        *paid, held = map(_checked, pipe.execute(raise_on_error=False))
    spent = {day: dict(zip(budgets, amounts or (), strict=False)) for day, amounts in zip(days, paid, strict=True)}
    return [
        BudgetLevel(
            name,
            period,
            limit,
            sum(_amount(spent[day].get(name)) for day in period.days(today)),
            int(reserved),
            int(waiting),
        )
        for (name, limits), (reserved, waiting) in zip(budgets.items(), held or [(0, 0)] * len(budgets), strict=True)
        for period, limit in limits.items()
    ]


def _checked(reply: Any) -> Any:
    """The reply of a command; None for an error of its key alone."""
    if isinstance(reply, redis.ResponseError):
        return None
    if isinstance(reply, Exception):
        raise reply
    return reply


def _amount(found: bytes | None) -> int:
    return int(found) if found and found.isdigit() else 0
