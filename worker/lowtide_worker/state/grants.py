"""The store's decision about the rows of a segment: which become results, and which are counted as paid."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from lowtide.protocol import keys
from lowtide_worker.state.held import HeldSegment, Superseded

STRANGER_BYTES = 8
"""Length of the digest of a row that belongs to no request of its job."""


class SegmentRows(NamedTuple):
    """The rows of a segment: by their ordinals, and those that belong to no request by a digest."""

    final: Sequence[int]
    """Those that end their request, in their order."""
    again: Sequence[int] = ()
    """Those whose request runs again."""
    strangers: Sequence[bytes] = ()

    def arguments(self, segment: HeldSegment) -> dict[str, Any]:
        """Returns what both scripts are given."""
        ordinals = [*self.final, *self.again]
        return {
            "segment": keys.entity(segment.member),
            "settled": keys.settled(segment.batch_id),
            "batch": keys.batch(segment.batch_id),
            "counted_rows": keys.counted(segment.record.job_id),
            "known_strangers": keys.strangers(segment.record.job_id),
            "token": segment.token,
            "ordinals": struct.pack(f"<{len(ordinals)}I", *ordinals),
            "final": len(self.final),
            "first": segment.job.first,
            "strangers": b"".join(self.strangers),
        }


class Granted(NamedTuple):
    """The answer, which is the same whenever the segment runs again."""

    results: bytes
    """For each final row, whether it becomes the result of its request: `1` or `0`."""
    counted: bytes
    """For each row, in the order final, again, strangers, whether it comes for the first time in its job; likewise."""

    @classmethod
    def of(cls, segment: HeldSegment, answer: Any) -> Granted:
        """The answer of a script. Raises `Superseded` where it has none."""
        if answer is None:
            raise Superseded(segment.member)
        return cls(*answer)
