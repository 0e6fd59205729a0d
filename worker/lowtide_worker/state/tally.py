"""The counts of a stored segment, which are added to the counters of its batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lowtide.protocol import OTHERS, PAID
from lowtide.store import pairs

_MOST_NAMES = 50
"""Reasons, and models, of a batch that are counted by name; the scripts count further ones together."""


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

    def arguments(self) -> dict[str, Any]:
        """Returns it as record.lua takes it."""
        return {
            "most": _MOST_NAMES,
            "others": OTHERS,
            "counts": pairs((name, amount) for name, amount in self.counts.items() if amount),
            "totals": pairs(self.totals.items()),
            "paid": pairs((PAID[name], amount) for name, amount in self.paid.items() if amount),
            "failed_by": pairs(self.reasons.items()),
            "answered_by": pairs(self.models.items()),
            "retried_by": pairs(self.retried.items()),
        }
