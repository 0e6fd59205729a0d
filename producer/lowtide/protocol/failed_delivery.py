"""The attempt to deliver a segment that failed last, as the record of a batch has it."""

from __future__ import annotations

import msgspec


class FailedDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt of a handler that has failed. hand_back.lua and note_delivery.lua write it beside the problem."""

    segment: str
    """The segment's member."""
    attempt: int
    """The attempt that has failed, from 1."""
    most: int = 0
    """Attempts after which the segment is parked; 0 where that is not known."""
    due: float
    """When the next attempt begins, in Unix seconds."""
