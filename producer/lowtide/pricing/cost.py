"""The cost of one row, in whole nano-dollars."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
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


def cost(
    table: PriceTable, model: str, usage: Usage, *, tier: Tier, on: date, details: Details = _TEXT_ONLY
) -> int | None:
    """Returns the cost of a row in nano-dollars, rounded to the nearest; None where it is unknown.

    - `model`: the model that answered. `on`: the day on which it did.

    The tokens of the prompt without the cached ones, and those of tools' results, cost as input; those of answers and
    thoughts as output. Source: https://ai.google.dev/gemini-api/docs/pricing
    """
    prices = table.find(model, tier, on, prompt=usage.prompt_token_count)
    if not prices:
        return None
    of_text = prices[Modality.TEXT]
    cached = _split(usage.cached_content_token_count, details.cached)
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
    return (pico + 500) // 1000


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
