"""The counts of a stored segment, which are added to the counters of its batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from lowtide.protocol import OTHERS, PAID
from lowtide.protocol.records import Range
from lowtide.store import pairs

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


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of one segment."""

    counts: Mapping[str, int] = {}
    """Amounts by the names of the batch's counters: results by status, their tokens, odd rows."""
    paid: Mapping[str, int] = {}
    """Tokens of all rows, results or not, by the names of `Usage`."""
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

    def arguments(self) -> dict[str, Any]:
        """Returns it as record.lua takes it."""
        return {
            "most": _MOST_NAMES,
            "others": OTHERS,
            "bundled": msgspec.json.encode(self.bundled) if self.bundled else "",
            "counts": pairs((name, amount) for name, amount in self.counts.items() if amount),
            "totals": pairs(self.totals.items()),
            "paid": pairs((PAID[name], amount) for name, amount in self.paid.items() if amount),
            "failed_by": pairs(self.reasons.items()),
            "answered_by": pairs(self.models.items()),
            "retried_by": pairs(self.retried.items()),
        }


def _two(flat: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """The pairs of a flat list."""
    return zip(flat[::2], flat[1::2], strict=True)
