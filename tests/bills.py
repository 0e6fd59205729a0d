"""The price of the emulator's record of tokens by the price table, to the nano-dollar.

It multiplies whole sums, so it holds for prices of whole nano-dollars for a token, and for models whose prompts are all
on one side of a step.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import date
from typing import cast

import redis

from lowtide.pricing import Modality, PriceTable, Tier
from lowtide.protocol import keys
from lowtide.protocol.daily_costs import ACCOUNT, CostDimension, DayCosts, day_of, read_day
from lowtide_emulator import JobRecord, Tokens

_OUTPUT = ("candidates", "thoughts")


def bill(
    tokens: Tokens, table: PriceTable | None = None, *, on: date | None = None, prompts: Mapping[str, int] | None = None
) -> int:
    """Returns the cost of tokens in nano-dollars, by the prices of batches on a day: today, unless it is given.

    `prompts`: the prompt tokens of each row of a model that has a step.
    """
    table = table or PriceTable.read()
    pico = 0
    for model, kinds in tokens.items():
        prices = table.find(model, Tier.BATCH, on or day_of(time.time()), prompt=(prompts or {}).get(model, 1))
        assert prices, f"no price of {model}"
        text = prices[Modality.TEXT]
        for kind, modalities in kinds.items():
            for modality, count in modalities.items():
                price = prices.get(Modality(modality.lower()), text)
                output = text.output if price.output is None else price.output
                if kind in _OUTPUT:
                    pico += count * (output or 0)
                elif kind == "cachedContent":
                    # They are a part of the prompt, which is counted as a whole.
                    pico += count * (price.cached - price.input)
                else:
                    pico += count * price.input
    return round(pico / 1000)


def billed(records: Iterable[JobRecord], names: Iterable[str]) -> int:
    """Returns what the emulator's jobs of some batches or bundles cost, in nano-dollars."""
    wanted = tuple(names)
    return sum(bill(record.billed_tokens) for record in records if any(name in record.display_name for name in wanted))


def paid_by_day(client: redis.Redis) -> DayCosts:
    """Returns the sums of all days."""
    total = DayCosts()
    for name in client.scan_iter(f"{keys.PREFIX}costs:*", count=1000):
        day = read_day(cast("dict[bytes, bytes]", client.hgetall(name)))
        account, models = day.get((CostDimension.ACCOUNT, ACCOUNT), DayCosts()), DayCosts()
        for (dimension, _), amounts in day.items():
            if dimension is CostDimension.MODEL:
                models += amounts
        assert models == account, f"{name!r}: {models} by model, {account} in all"
        total += account
    return total
