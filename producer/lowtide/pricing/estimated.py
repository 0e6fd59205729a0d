"""The estimated cost of requests that have not run, in nano-dollars, at batch prices."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from lowtide.pricing.table import Modality, PriceTable, Tier


@lru_cache(maxsize=8)
def price_table(path: str | None) -> PriceTable:
    """Returns `PriceTable.read(path)`, which is read once in a process. Raises `InvalidPrices`."""
    return PriceTable.read(path)


class TokenPrice(NamedTuple):
    """The price of a token of text at batch prices, in pico-dollars."""

    input: int
    output: int

    def cost(self, tokens: int, output: int) -> int:
        """Returns the estimated cost of `tokens` of input and `output` tokens of answers, in nano-dollars."""
        return (tokens * self.input + output * self.output + 999) // 1000


def token_price(table: PriceTable, model: str, *, prompt: int, on: date) -> TokenPrice | None:
    """Returns the price of requests with `prompt` tokens each; None where no price is known.

    The tokens of a prompt matter only where the price has steps.
    """
    prices = table.find(model, Tier.BATCH, on, prompt=prompt)
    return TokenPrice(prices[Modality.TEXT].input, prices[Modality.TEXT].output or 0) if prices else None


def request_costs(table: PriceTable, model: str, *, on: date) -> Callable[[int, int], int]:
    """Returns a function of a request's input tokens and output tokens: its estimated cost, in nano-dollars.

    A request of a model without a price costs 0.
    """
    steps = sorted(table.steps(model, Tier.BATCH)) or [0]
    prices = [token_price(table, model, prompt=step + 1, on=on) or TokenPrice(0, 0) for step in steps]

    def cost(tokens: int, output: int) -> int:
        return prices[max(0, bisect_left(steps, tokens) - 1)].cost(tokens, output)

    return cost
