"""Checks of what requests may cost, before a batch is recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from lowtide.budgets import exact_dollars, labels_under
from lowtide.errors import InvalidBatch
from lowtide.options import Options
from lowtide.pricing import InvalidPrices, Tier, price_table, request_costs
from lowtide.settings import Settings
from lowtide.shaping.tokens import assumed_output
from lowtide.states import Kind

log = logging.getLogger(__name__)

_MOST_MODELS = 1000
"""Most models that a queue remembers, as users may choose the names."""


def check_price(options: Options, settings: Settings) -> None:
    """Raises `InvalidBatch` for a model without a price whose cost is to be limited."""
    if options.max_cost is None and not labels_under(settings.budgets, options.labels):
        return
    if not price_table(settings.prices).find(options.model, Tier.BATCH, datetime.now(UTC).date()):
        option = "labels: one of them has a budget, and" if options.max_cost is None else "max_cost:"
        raise InvalidBatch(
            f"{option} no price is known for {options.model}; write one into the file that LOWTIDE_PRICES names"
        )


class PriceWarnings:
    """The warnings of a queue about models without a known price, which may be misspelt: one for each model."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen: set[str] = set()

    def check(self, model: str) -> None:
        """Logs a warning where no price is known for a model that was not checked before."""
        if model in self._seen or len(self._seen) >= _MOST_MODELS:
            return
        self._seen.add(model)
        # A table that cannot be read is the error of those who need a price.
        with suppress(InvalidPrices):
            if missing := _missing_price(model, self._settings):
                log.warning("%s", missing)


def _missing_price(model: str, settings: Settings) -> str | None:
    table, today = price_table(settings.prices), datetime.now(UTC).date()
    if table.find(model, Tier.BATCH, today):
        return None
    near = table.nearest(model, Tier.BATCH, today)
    hint = f" (the nearest name with one is {near})" if near else ""
    return (
        f"no price is known for {model}{hint}: check the name; if it is right, write its price into the file that "
        "LOWTIDE_PRICES names"
    )


def weighing(model: str, kind: Kind, settings: Settings) -> Callable[[bytes, int], tuple[int, int]]:
    """Returns a function of a request's body and input tokens: its most output tokens, and its estimated cost."""
    cost = request_costs(price_table(settings.prices), model, on=datetime.now(UTC).date())

    def weigh(body: bytes, tokens: int) -> tuple[int, int]:
        output = assumed_output(body, kind)
        return output, cost(max(1, tokens), output)

    return weigh


def check_budgets(options: Options, settings: Settings, *, least: int, most: int) -> None:
    """Raises `InvalidBatch` for a `max_cost`, or a budget of a label, that can never pay for a request.

    `least`, `most`: the estimated costs of the cheapest and of the dearest request, in nano-dollars.
    """
    if options.max_cost is not None and least > options.max_cost:
        raise InvalidBatch(
            f"max_cost: {exact_dollars(options.max_cost)} is below {exact_dollars(least)}, the estimated cost of the "
            "cheapest request with its answer; set max_output_tokens, or give more"
        )
    for name, value in labels_under(settings.budgets, options.labels).items():
        for period, limit in settings.budgets[f"{name}={value}"].items():
            if most > limit:
                raise InvalidBatch(
                    f"labels: one request may cost {exact_dollars(most)}, more than the whole {period} budget of "
                    f"{name}={value}, {exact_dollars(limit)}; set max_output_tokens, or raise the budget"
                )
