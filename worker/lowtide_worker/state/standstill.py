"""The reason why a batch makes no progress, as its status shows it."""

from __future__ import annotations

import redis

from lowtide.protocol import keys
from lowtide_worker.state import scripts
from lowtide_worker.state.held import HeldSegment, Superseded


def note_standstill(client: redis.Redis, segment: HeldSegment, problem: str) -> None:
    """Shows on its batch why a segment makes no progress; "" where it does again. Raises `Superseded`."""
    note = scripts.note_problem.load(client)
    noted = note(
        segment=keys.entity(segment.member),
        batch=keys.batch(segment.batch_id),
        token=segment.token,
        problem=problem,
    )
    if not noted:
        raise Superseded(segment.member)
