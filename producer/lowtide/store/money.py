"""Money in the store: the daily costs, what budgets hold for jobs under way, and the `max_cost` of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from typing import cast

import redis

from lowtide.errors import BatchNotFound, InvalidBatch, StoreUnavailable
from lowtide.protocol import Quota, Stage, keys, read_quota
from lowtide.protocol.daily_costs import KEPT_SECONDS, CostDimension, DayCosts, read_day
from lowtide.store import scripts
from lowtide.store.connection import redis_errors

DayAmounts = dict[tuple[CostDimension, str], DayCosts]


class Money:
    """The daily costs, what budgets hold for jobs under way, and the `max_cost` of a batch, in one Redis.

    Every method may raise `StoreUnavailable`. `url` is for errors.
    """

    def __init__(self, client: redis.Redis, url: str) -> None:
        self._redis = client
        self._url = url

    def daily_costs(self, days: Sequence[date]) -> dict[date, DayAmounts]:
        """Returns the amounts of each day, by dimension and name."""
        with redis_errors(self._url), self._redis.pipeline(transaction=False) as pipe:
            for day in days:
                pipe.hgetall(keys.costs(day))
            return {day: read_day(found) for day, found in zip(days, pipe.execute(), strict=True)}

    def reserved(self, budgets: Iterable[str]) -> Mapping[str, int]:
        """Returns what each budget holds for jobs under way, in nano-dollars: their estimate without what is paid."""
        names = list(budgets)
        with redis_errors(self._url):
            held = scripts.holdings.load(self._redis)(
                reserved=[keys.reserved(name) for name in names],
                job_hash=keys.job(""),
                waiting_for=[keys.waiting_for(name) for name in names],
            )
        return {name: int(reserved) for name, (reserved, _) in zip(names, held, strict=True)}

    def unused(self, budgets: Iterable[str], today: date) -> list[str]:
        """Returns the budgets for whose label nothing was paid in all days that are kept, and that hold nothing."""
        names = [name for name, held in self.reserved(budgets).items() if not held]
        fields = [f"{CostDimension.LABEL}|{name}|requests" for name in names]
        if not fields:
            return []
        with redis_errors(self._url), self._redis.pipeline(transaction=False) as pipe:
            for days in range(KEPT_SECONDS // 86_400):
                pipe.hmget(keys.costs(today - timedelta(days=days)), fields)
            replies = [reply for reply in pipe.execute(raise_on_error=False) if isinstance(reply, list)]
        return [name for name, *paid in zip(names, *replies, strict=True) if not any(paid)]

    def set_max_cost(self, batch_id: str, max_cost: int) -> None:
        """Changes the `max_cost` of a batch, in nano-dollars. Raises `BatchNotFound`, `InvalidBatch` without one."""
        with redis_errors(self._url):
            state = scripts.set_max_cost.load(self._redis)(
                batch=keys.batch(batch_id),
                clock=keys.clock(Stage.CREATE.queue),
                waiting_for=keys.waiting_for(batch_id),
                max_cost=max_cost,
                entity_prefix=keys.entity(""),
            )
        if state is None:
            raise BatchNotFound(f"no batch {batch_id}: it was never submitted here, or it is deleted")
        if not state:
            raise InvalidBatch(f"batch {batch_id} was submitted without a max_cost; cancel it to stop it")

    def quota(self, provider: str, model: str) -> Quota | None:
        """Returns what is known of the live tokens of a model; None where Redis does not answer."""
        with suppress(StoreUnavailable), redis_errors(self._url):
            return read_quota(cast("bytes | None", self._redis.get(keys.quota(provider, model))))
        return None
