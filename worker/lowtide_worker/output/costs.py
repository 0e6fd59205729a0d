"""The cost of each row of output: by the model that answered, and the batch prices of one day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, cast

import msgspec

from lowtide.pricing import DayPrices, Details, Modality, PriceTable, Tier
from lowtide_worker.output.judging import Outcome
from lowtide_worker.providers import NO_RESPONSE, OutputRow

_MOST = 1_000 * 10**9
"""Nano-dollars of one row. One that would cost more has wrong token counts, and sums of such rows would not fit into
the integers of Redis."""


class _Counted(msgspec.Struct, frozen=True, rename="camel", gc=False):
    modality: str | None = None
    token_count: Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)] | None = None


class _Usage(msgspec.Struct, frozen=True, rename="camel", gc=False):
    prompt_tokens_details: list[_Counted] | None = None
    cache_tokens_details: list[_Counted] | None = None
    candidates_tokens_details: list[_Counted] | None = None


class _Response(msgspec.Struct, frozen=True, rename="camel", gc=False):
    usage_metadata: _Usage | None = None


# Not strict: counters may come as JSON strings.
_decode = msgspec.json.Decoder(_Response, strict=False).decode


class RowCosts:
    """The costs of the rows of one job.

    - `model`: the model that was asked for, which counts where a response does not name the one that answered.
    - `day`: the day whose prices count.
    """

    def __init__(self, table: PriceTable, model: str, day: date) -> None:
        self._prices = DayPrices(table, tier=Tier.BATCH, on=day)
        self._model = model

    def costs(self, rows: Sequence[OutputRow], outcomes: Sequence[Outcome]) -> list[int | None]:
        """Returns the costs of rows in nano-dollars; None where the tokens or their price are unknown.

        A row without a response is not billed. Source: https://ai.google.dev/gemini-api/docs/batch-api
        """
        names = {outcome.model for outcome in outcomes}
        usages = [outcome.usage for outcome in outcomes if outcome.usage is not None]
        if len(names) == 1 and len(usages) == len(outcomes):
            # The usual case: the same model has answered all rows.
            costs = self._prices.costs(names.pop() or self._model, usages)
            if costs is not None and max(costs) <= _MOST:
                return cast("list[int | None]", costs)
        return [self._cost(row.response, outcome) for row, outcome in zip(rows, outcomes, strict=True)]

    def _cost(self, response: msgspec.Raw, outcome: Outcome) -> int | None:
        usage = outcome.usage
        if usage is None:
            return 0 if response == NO_RESPONSE else None
        cost = self._prices.cost(outcome.model or self._model, usage, lambda: _details(response))
        return cost if cost is None or cost <= _MOST else None


def _details(response: msgspec.Raw) -> Details:
    """The tokens of a response by modality; those that it does not report count as text."""
    try:
        usage = _decode(response).usage_metadata
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Details()
    if usage is None:
        return Details()
    return Details(
        _by_modality(usage.prompt_tokens_details),
        _by_modality(usage.cache_tokens_details),
        _by_modality(usage.candidates_tokens_details),
    )


def _by_modality(details: list[_Counted] | None) -> dict[Modality, int]:
    counts: Counter[Any] = Counter()
    for one in details or ():
        # Documents, and what is new, cost as text does.
        if one.token_count and (modality := (one.modality or "").lower()) in _MODALITIES:
            counts[Modality(modality)] += one.token_count
    return dict(counts)


_MODALITIES = frozenset(map(str, Modality))
