"""The cost of one row, in whole nano-dollars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple

from lowtide.models import Usage
from lowtide.pricing.table import Modality, Price, PriceTable, Tier

_NONE: Mapping[Modality, int] = MappingProxyType({})


class Details(NamedTuple):
    """Tokens by modality, where the provider reports them. All other tokens of a row count as text."""

    prompt: Mapping[Modality, int] = _NONE
    """`promptTokensDetails`, the cached ones among them."""
    cached: Mapping[Modality, int] = _NONE
    """`cacheTokensDetails`."""
    candidates: Mapping[Modality, int] = _NONE
    """`candidatesTokensDetails`."""


_TEXT_ONLY = Details()
_COUNTS = attrgetter(
    "prompt_token_count",
    "tool_use_prompt_token_count",
    "cached_content_token_count",
    "candidates_token_count",
    "thoughts_token_count",
)


def cost(
    table: PriceTable, model: str, usage: Usage, *, tier: Tier, on: date, details: Details = _TEXT_ONLY
) -> int | None:
    """Returns the cost of a row in nano-dollars, rounded to the nearest; None where it is unknown.

    - `model`: the model that answered. `on`: the day on which it did.

    The tokens of the prompt without the cached ones, and those of tools' results, cost as input; those of answers and
    thoughts as output. Source: https://ai.google.dev/gemini-api/docs/pricing
    """
    return DayPrices(table, tier=tier, on=on).cost(model, usage, lambda: details)


class DayPrices:
    """The prices of one tier on one day. It keeps what it finds for a model, for the many rows that follow."""

    def __init__(self, table: PriceTable, *, tier: Tier, on: date) -> None:
        self._table = table
        self._tier = tier
        self._on = on
        self._steps: dict[str, list[_Step]] = {}

    def cost(self, model: str, usage: Usage, details: Callable[[], Details]) -> int | None:
        """As `cost`. `details` is called only where the price depends on them."""
        steps = self._steps_of(model)
        if not steps:
            return None
        step = steps[0]
        if len(steps) > 1:
            step = next(step for step in reversed(steps) if usage.prompt_token_count > step.above or not step.above)
        if step.others is not None:
            return _rounded(_by_modality(step.others, usage, details()))
        # Cached tokens are a part of the prompt; a row that reports more is wrong, and must not use up a budget.
        cached = min(usage.cached_content_token_count, usage.prompt_token_count)
        fresh = usage.prompt_token_count + usage.tool_use_prompt_token_count - cached
        output = usage.candidates_token_count + usage.thoughts_token_count
        return _rounded(fresh * step.input + cached * step.cached + output * step.output)

    def costs(self, model: str, usages: Sequence[Usage]) -> list[int] | None:
        """Returns the costs of many rows; None where the price is unknown, or depends on more than their counts."""
        steps = self._steps_of(model)
        if len(steps) != 1 or steps[0].others is not None:
            return None
        _, fresh, cached, output, _ = steps[0]
        return [
            ((prompt + tools - kept) * fresh + kept * cached + (said + thought) * output + 500) // 1000
            if kept <= prompt
            else _rounded(tools * fresh + prompt * cached + (said + thought) * output)
            for prompt, tools, kept, said, thought in map(_COUNTS, usages)
        ]

    def _steps_of(self, model: str) -> list[_Step]:
        steps = self._steps.get(model)
        if steps is None:
            steps = self._steps[model] = self._found(model)
        return steps

    def _found(self, model: str) -> list[_Step]:
        """The prices by the step that a prompt has passed, from the lowest."""
        steps = []
        for above in sorted({0, *self._table.steps(model, self._tier)}):
            prices = self._table.find(model, self._tier, self._on, prompt=above + 1)
            if not prices:
                return []
            text = prices[Modality.TEXT]
            others = prices if len(prices) > 1 else None
            steps.append(_Step(above, text.input, text.cached, text.output or 0, others))
        return steps


class _Step(NamedTuple):
    """The prices of a model for prompts of more than `above` tokens: those of text, in pico-dollars for one token."""

    above: int
    input: int
    cached: int
    output: int
    others: Mapping[Modality, Price] | None
    """The prices of all modalities; None where everything costs as text does."""


def _rounded(pico: int) -> int:
    return (pico + 500) // 1000


def _by_modality(prices: Mapping[Modality, Price], usage: Usage, details: Details) -> int:
    """The cost of a row in pico-dollars, where modalities have prices of their own."""
    of_text = prices[Modality.TEXT]
    cached = _split(min(usage.cached_content_token_count, usage.prompt_token_count), details.cached)
    prompt = _split(usage.prompt_token_count, details.prompt)
    prompt[Modality.TEXT] += usage.tool_use_prompt_token_count
    output = _split(usage.candidates_token_count, details.candidates)
    output[Modality.TEXT] += usage.thoughts_token_count
    pico = 0
    for modality in Modality:
        price = prices.get(modality, of_text)
        pico += max(0, prompt[modality] - cached[modality]) * price.input
        pico += cached[modality] * price.cached
        pico += output[modality] * _output(price, of_text)
    return pico


def _output(price: Price, of_text: Price) -> int:
    return price.output if price.output is not None else of_text.output or 0


def _split(total: int, details: Mapping[Modality, int]) -> dict[Modality, int]:
    """Tokens by modality: no more than there are in all, and text is what the details do not name."""
    found = dict.fromkeys(Modality, 0)
    left = max(0, total)
    for modality, count in details.items():
        if modality is not Modality.TEXT:
            found[modality] = min(max(0, count), left)
            left -= found[modality]
    found[Modality.TEXT] = left
    return found
