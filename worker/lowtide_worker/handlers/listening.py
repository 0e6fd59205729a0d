"""Deliveries that find nobody: they wait until a worker listens for their handler, and cost no try."""

from __future__ import annotations

import logging

import redis

from lowtide.backoff import Backoff
from lowtide.protocol import Queue, Stage, keys
from lowtide.store import FRESH_SECONDS
from lowtide_worker.handlers.protocol import NobodyListens
from lowtide_worker.state import Held, Move, Superseded, scripts

log = logging.getLogger(__name__)

_LOOKS = Backoff(first=2.0, cap=60.0)
"""A worker that begins to listen wakes what waits for it; for the case that it could not."""
_MAX_PROBLEM_CHARS = 1000
_SET_KEPT_SECONDS = 30 * 86_400


class Deliveries:
    """Redis scripts around what hinders deliveries."""

    def __init__(self, client: redis.Redis) -> None:
        self._await_listener = scripts.await_listener.load(client)
        self._note = scripts.note_delivery.load(client)

    def wait(self, segment: Held, nobody: NobodyListens, wakes: tuple[Queue, ...]) -> Move:
        """The end of a delivery for which nobody listens. Raises `Superseded`."""
        spec, problem = segment.batch["on_result"], str(nobody)[:_MAX_PROBLEM_CHARS]
        waits = self._await_listener(
            segment=keys.entity(segment.member),
            listeners=keys.listeners(nobody.handler),
            in_hand=keys.in_hand(spec),
            queued=keys.queued(spec),
            batch=keys.batch(segment.batch_id),
            member=segment.member,
            token=segment.token,
            fresh=FRESH_SECONDS,
            problem=problem,
            kept=_SET_KEPT_SECONDS,
        )
        if waits < 0:
            raise Superseded(segment.member)
        looks = segment.number("looks")
        if not looks:
            log.warning("segment %s: %s", segment.member, problem)
        pause = _LOOKS.seconds(looks) if waits else 0.0
        return Move(stage=Stage.DELIVER, after=pause, fields={"looks": looks + 1, "problem": problem}, wakes=wakes)

    def failed(self, segment: Held, problem: str) -> None:
        """Notes at the batch why its handler could not be given a segment."""
        self._say(segment, problem[:_MAX_PROBLEM_CHARS])

    def succeeded(self, segment: Held) -> None:
        """Takes back what an earlier try of the same segment noted."""
        if segment.fields.get("problem"):
            self._say(segment, "")

    def _say(self, segment: Held, problem: str) -> None:
        self._note(
            segment=keys.entity(segment.member),
            batch=keys.batch(segment.batch_id),
            token=segment.token,
            problem=problem,
        )
