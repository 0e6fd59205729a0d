"""The tally of a segment: what the store counts once its results are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from datetime import date
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from lowtide.models import Usage
from lowtide.protocol import BatchRecord, measures
from lowtide.protocol.daily_costs import CostDimension
from lowtide.protocol.file_parts import Range
from lowtide.states import ResultStatus
from lowtide_worker.bundling import by_batch
from lowtide_worker.output import Joined, Row, daily_costs, daily_costs_of_labels, day_costs, tally
from lowtide_worker.state import BundledBatch, BundledTally, DailyCost, Granted, Tally

Item = TypeVar("Item")
_SET = ord("1")


class DecidedRows(NamedTuple):
    """The rows of a segment with what the store has decided about them."""

    final: Sequence[Joined]
    """Rows that end their request."""
    again: Sequence[Joined]
    """Rows whose requests run again."""
    results: Sequence[Joined]
    """Final rows that became results."""
    paid: Sequence[Row | Joined]
    """Rows that are counted as paid, strangers too. Nearly always they are the results, and then the same list."""
    retried: Sequence[Joined]
    """Those of `again` that come for the first time."""

    @classmethod
    def of(
        cls, final: Sequence[Joined], again: Sequence[Joined], strangers: Sequence[Row], granted: Granted
    ) -> DecidedRows:
        """The rows of a segment, by the answer of the store."""
        every: Sequence[Row | Joined] = [*final, *again, *strangers] if again or strangers else final
        return cls(
            final=final,
            again=again,
            results=_chosen(final, granted.results),
            paid=_chosen(every, granted.counted),
            retried=_chosen(again, granted.counted[len(final) : len(final) + len(again)]),
        )


def tally_of(
    rows: DecidedRows,
    batch: BatchRecord,
    *,
    quarantined: int,
    day: date,
    batches: Sequence[BundledBatch],
    ranges: Mapping[str, Range],
    budgets: Container[str],
    places: Sequence[tuple[int, bytes]],
) -> Tally:
    """Returns the tally of a segment.

    - `quarantined`: the number of lines that belong to no request.
    - `batches`, `ranges`: the batches of a bundle, and the places of their results; empty for another batch.
    - `budgets`: the labels that have one, as `team=catalog`.
    - `places`: entries for the index of the job's results.
    """
    odd = {"duplicates": len(rows.final) - len(rows.results), "quarantined": quarantined}
    found = tally(rows.paid, rows.results, odd)
    total = day_costs(rows.paid, found.paid)
    daily = daily_costs(rows.paid, total, batch)
    if not batches:
        daily += daily_costs_of_labels(total, batch.labels, budgets)
    mine = [item for item in rows.paid if isinstance(item, Joined)] if batches else []
    for bundled, some in by_batch(mine, batches):
        # Of a batch that is deleted the bundle still knows the labels that have a budget.
        daily += daily_costs_of_labels(day_costs(some), bundled.labels or batch.labels, budgets)
    if batches and len(mine) < len(rows.paid):
        strangers = [row for row in rows.paid if not isinstance(row, Joined)]
        daily += daily_costs_of_labels(day_costs(strangers), batch.labels, budgets)
    return replace(
        found,
        totals=_totals(rows.results, found.counts, batch) | _costs(daily, batch),
        retried=Counter(map(_reason, rows.retried)),
        bundled=_bundled(rows, mine, batches, ranges),
        day=day,
        daily=daily,
        places=places,
    )


def _chosen(items: Sequence[Item], flags: bytes) -> Sequence[Item]:
    """The items whose flag is set: the same list where all are."""
    return [item for item, flag in zip(items, flags, strict=True) if flag == _SET] if b"0" in flags else items


def _bundled(
    rows: DecidedRows, paid: Sequence[Joined], batches: Sequence[BundledBatch], ranges: Mapping[str, Range]
) -> list[BundledTally]:
    """The counts of each batch of a bundle that has rows here."""
    if not batches:
        return []
    ends = {batch.id: len(some) for batch, some in by_batch(rows.final, batches)}
    results = {batch.id: some for batch, some in by_batch(rows.results, batches)}
    of_batch = {batch.id: some for batch, some in by_batch(paid, batches)}
    tallies = []
    for batch, _ in by_batch([*rows.final, *rows.again], batches):
        got = results.get(batch.id) or []
        odd = {"duplicates": ends.get(batch.id, 0) - len(got)}
        counts = tally(of_batch.get(batch.id) or [], got, odd)
        tallies.append(BundledTally.of(batch.id, counts, ranges.get(batch.id)))
    return tallies


def _reason(item: Joined) -> str:
    return measures.short_reason(item.outcome.error.reason) if item.outcome.error else ""


def _totals(results: Sequence[Joined], counts: Mapping[str, int], batch: BatchRecord) -> dict[str, int]:
    """The counters of all batches that a segment's results add to."""
    failed = [item for item in results if item.outcome.error is not None]
    by_reason = Counter((str(item.outcome.status), _reason(item)) for item in failed)
    by_reason[str(ResultStatus.SUCCEEDED), ""] = len(results) - len(failed)
    totals = {measures.counter(measures.RESULTS, *labels): count for labels, count in by_reason.items() if count}
    for name in Usage.__struct_fields__:
        if counts[name]:
            kind = name.removesuffix("_token_count")
            totals[measures.counter(measures.TOKENS, kind, batch.provider, batch.model)] = counts[name]
    return totals


def _costs(daily: Sequence[DailyCost], batch: BatchRecord) -> dict[str, int]:
    """The counters of what was paid, by the model that answered."""
    return {
        measures.counter(measures.COST, batch.provider, one.name): one.amounts.cost
        for one in daily
        if one.dimension is CostDimension.MODEL and one.amounts.cost
    }
