"""Deliveries that find nobody: they wait until a worker listens for their handler, and cost no try."""

from __future__ import annotations

import logging

import redis

from lowtide.backoff import Backoff
from lowtide.protocol import Queue, Stage, keys
from lowtide.store import FRESH_SECONDS, load_script
from lowtide_worker.handlers.protocol import NobodyListens
from lowtide_worker.state import HeldSegment, Move, SegmentMove, Superseded

log = logging.getLogger(__name__)

_LOOKS = Backoff(first=2.0, cap=60.0)
"""A worker that begins to listen wakes what waits for it; for the case that it could not."""
_MAX_PROBLEM_CHARS = 1000
_SET_KEPT_SECONDS = 30 * 86_400


class Deliveries:
    """Redis scripts around what hinders deliveries."""

    def __init__(self, client: redis.Redis) -> None:
        self._await_listener = load_script(client, "lowtide_worker.state", "await_listener")
        self._note = load_script(client, "lowtide_worker.state", "note_delivery")

    def wait(self, segment: HeldSegment, nobody: NobodyListens, wakes: tuple[Queue, ...]) -> SegmentMove:
        """The end of a delivery for which nobody listens. Raises `Superseded`."""
        spec, problem = segment.batch.on_result or "", str(nobody)[:_MAX_PROBLEM_CHARS]
        waits = self._await_listener(
            keys=[
                keys.entity(segment.member),
                keys.listeners(nobody.handler),
                keys.in_hand(spec),
                keys.queued(spec),
                keys.batch(segment.batch_id),
            ],
            args=[segment.member, segment.token, FRESH_SECONDS, problem, _SET_KEPT_SECONDS],
        )
        if waits < 0:
            raise Superseded(segment.member)
        looks = segment.record.looks
        if not looks:
            log.warning("segment %s: %s", segment.member, problem)
        pause = _LOOKS.seconds(looks) if waits else 0.0
        return Move(stage=Stage.DELIVER, after=pause, fields={"looks": looks + 1, "problem": problem}, wakes=wakes)

    def failed(self, segment: HeldSegment, problem: str) -> None:
        """Notes at the batch why its handler could not be given a segment."""
        self._say(segment, problem[:_MAX_PROBLEM_CHARS])

    def succeeded(self, segment: HeldSegment) -> None:
        """Takes back what an earlier try of the same segment noted."""
        if segment.record.problem:
            self._say(segment, "")

    def _say(self, segment: HeldSegment, problem: str) -> None:
        names = [keys.entity(segment.member), keys.batch(segment.batch_id)]
        self._note(keys=names, args=[segment.token, problem])
