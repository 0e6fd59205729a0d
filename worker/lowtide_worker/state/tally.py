"""The counts of a stored segment, which are added to the counters of its batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import msgspec

from lowtide.protocol import OTHERS, PAID, daily_costs
from lowtide.protocol.daily_costs import CostDimension, DayCosts
from lowtide.protocol.file_parts import Range
from lowtide.protocol.records import COST
from lowtide.spool import ENTRY_BYTES
from lowtide.store import pairs

_COSTS = frozenset({COST, PAID[COST]})
_COST_NAMES = msgspec.json.encode(
    [daily_costs.NAMES, daily_costs.MOST_NAMES, daily_costs.OTHER_NAMES, daily_costs.KEPT_SECONDS]
)
_MOST_NAMES = 50
"""Reasons, and models, of a batch that are counted by name; the scripts count further ones together."""


class BundledTally(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The counts of the part of a segment that belongs to one batch of a bundle."""

    batch_id: str
    counts: Mapping[str, int]
    """Amounts by the names of the batch's counters, those of paid tokens too."""
    failed_by: Sequence[str | int] = ()
    """Reasons and amounts, one after the other."""
    answered_by: Sequence[str | int] = ()
    """Models and amounts, one after the other."""
    range: Range | None = None
    """The range of its results; None where it has none here."""

    @classmethod
    def of(cls, batch_id: str, tally: Tally, stored: Range | None) -> BundledTally:
        """The counts of `tally` for a batch, whose results are at `stored`."""
        given = tally.arguments()
        counts = {**dict(_two(given["counts"])), **dict(_two(given["paid"]))}
        return cls(
            batch_id=batch_id,
            counts=counts,
            failed_by=given["failed_by"] or (),
            answered_by=given["answered_by"] or (),
            range=stored,
        )


class DailyCost(NamedTuple):
    """The amounts that one segment adds to one name in the costs of a day."""

    dimension: CostDimension
    name: str
    amounts: DayCosts
    always: bool = False
    """Whether the name is counted by itself however many others there are."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of one segment."""

    counts: Mapping[str, int] = {}
    """Amounts by the names of the batch's counters: results by status, their tokens, odd rows."""
    paid: Mapping[str, int] = {}
    """Rows, tokens and cost of all rows that are counted as paid, results or not, by the names of `PAID`."""
    reasons: Mapping[str, int] = {}
    """Results without success, by reason."""
    models: Mapping[str, int] = {}
    """Results, by the model that answered."""
    totals: Mapping[str, int] = {}
    """Amounts by the names of the counters of all batches."""
    retried: Mapping[str, int] = {}
    """Rows whose requests run again, by reason."""
    bundled: Sequence[BundledTally] = ()
    """The same for each batch, where the segment is of a bundle."""
    places: Sequence[tuple[int, bytes]] = ()
    """Entries for the index of the job's results: see `lowtide.spool.SegmentPlaces`."""
    day: date = date.min
    """The day whose costs the rows belong to."""
    daily: Sequence[DailyCost] = ()
    """The amounts that they add to those costs."""

    def arguments(self) -> dict[str, Any]:
        """Returns it as record.lua takes it."""
        return {
            "most": _MOST_NAMES,
            "others": OTHERS,
            "bundled": msgspec.json.encode(self.bundled) if self.bundled else "",
            "cost_names": _COST_NAMES,
            "counts": _amounts(self.counts),
            "totals": pairs(self.totals.items()),
            "paid": _amounts({PAID[name]: amount for name, amount in self.paid.items()}),
            "failed_by": pairs(self.reasons.items()),
            "answered_by": pairs(self.models.items()),
            "retried_by": pairs(self.retried.items()),
            "places": pairs((ENTRY_BYTES * first, entries) for first, entries in self.places),
            "daily": [part for one in self.daily for part in _daily(one)],
        }


def _amounts(counts: Mapping[str, int]) -> list[Any]:
    """The counters and their amounts, one after the other. A cost of 0 is written: without any it is unknown."""
    return pairs((name, amount) for name, amount in counts.items() if amount or name in _COSTS)


def _daily(one: DailyCost) -> list[Any]:
    amounts = [(name, amount) for name, amount in msgspec.structs.asdict(one.amounts).items() if amount]
    return [one.dimension, one.name, int(one.always), len(amounts), *pairs(amounts)]


def _two(flat: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """The pairs of a flat list."""
    return zip(flat[::2], flat[1::2], strict=True)
