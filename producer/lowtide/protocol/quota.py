"""The quota of enqueued tokens of a model, as the store has it."""

from __future__ import annotations

import msgspec

_WEIGHT = 1e4
"""Tokens that it takes to move the ratio away from 1."""


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of the live tokens of a model, and what corrects their estimates; turns.lua keeps it."""

    configured: float | None = None
    """The limit that the workers' settings give."""
    learned: float | None = None
    """The limit that refusals have taught."""
    lowered: float | None = None
    """When the learned limit was last lowered."""
    taken: float | None = None
    """The most tokens that the provider has taken since there is a limit."""
    estimated: float = 0
    """Estimated tokens of rows that have reported theirs; the older they are, the less they count."""
    reported: float = 0
    """The tokens that these rows have reported."""

    @property
    def ratio(self) -> float:
        """Reported tokens for each estimated one, from 1/4 to 4, as turns.lua has it: near 1 until much is known."""
        return max(0.25, min(4.0, (self.reported + _WEIGHT) / (self.estimated + _WEIGHT)))

    @property
    def limit(self) -> int | None:
        """The most tokens of all live jobs of the model; None where no limit is known."""
        known = [limit for limit in (self.configured, self.learned) if limit is not None]
        return int(min(known)) if known else None


_decode_quota = msgspec.json.Decoder(Quota, strict=False).decode


def read_quota(stored: bytes | None) -> Quota:
    """The quota of a model, as the store has it; one without limits where there is none, or it is damaged."""
    try:
        return _decode_quota(stored or b"{}")
    except (ValueError, RecursionError):
        return Quota()
