"""Deliveries: which handler has which segments in hand, and what hinders the others.

A segment whose results are stored waits here until its handler has taken it, or until it is parked. Every change is
one atomic script that first checks that the caller still holds the segment.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import redis

from lowtide.protocol import Stage, keys, measures
from lowtide.store import FRESH_SECONDS, Places
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import scripts
from lowtide_worker.state.held import HeldSegment, Superseded

_QUEUE_KEPT_SECONDS = 30 * 86_400
"""How long the deliveries that wait for a listener are remembered as waiting; each also retries by itself."""

_SWEEPS_KEPT = 10


class Deliveries:
    """Redis scripts around segments whose results are stored."""

    def __init__(self, client: redis.Redis, settings: WorkerSettings) -> None:
        self._redis = client
        self._settings = settings
        self._places = Places(client)
        self._offer = scripts.offer.load(client)
        self._await_listener = scripts.await_listener.load(client)
        self._note_delivery = scripts.note_delivery.load(client)
        self._handed_over = scripts.handed_over.load(client)

    def offer(self, segment: HeldSegment, *, patience: float) -> bool:
        """Takes a place in the handler's hands; returns whether one was free.

        Without a place the segment is woken when its turn comes. A place that is not given back within `patience`
        seconds counts as lost. Raises `Superseded`.
        """
        handler = segment.batch.on_result or ""
        answer = self._offer(
            segment=keys.entity(segment.member),
            in_hand=keys.in_hand(handler),
            queued=keys.queued(handler),
            batch=keys.batch(segment.batch_id),
            member=segment.member,
            token=segment.token,
            most=self._settings.handler_window,
            patience=patience,
        )
        if answer < 0:
            raise Superseded(segment.member)
        return bool(answer)

    def note_webhooks(self, urls: Sequence[str]) -> None:
        """Notes for producers which webhooks workers may call, until some sweeps have not done so again."""
        kept = max(1, round(_SWEEPS_KEPT * self._settings.sweep_seconds))
        self._redis.set(keys.WEBHOOKS, msgspec.json.encode(urls), ex=kept)

    def withdraw(self, segment: HeldSegment) -> None:
        """Gives a place back: the handler did not get the segment."""
        self._places.free(segment.batch_id, segment.member)

    def await_listener(self, segment: HeldSegment, listens_as: str, problem: str) -> bool:
        """Has a segment wait until a worker listens for its handler, and gives its place back.

        `listens_as` is the name under which the handler's workers register, `problem` the text that the batch's
        status shows. Returns False if a worker has come meanwhile. Raises `Superseded`.
        """
        handler = segment.batch.on_result or ""
        waits = self._await_listener(
            segment=keys.entity(segment.member),
            listeners=keys.listeners(listens_as),
            in_hand=keys.in_hand(handler),
            queued=keys.queued(handler),
            batch=keys.batch(segment.batch_id),
            member=segment.member,
            token=segment.token,
            fresh=FRESH_SECONDS,
            problem=problem,
            kept=_QUEUE_KEPT_SECONDS,
        )
        if waits < 0:
            raise Superseded(segment.member)
        return bool(waits)

    def note_failure(self, segment: HeldSegment, problem: str, *, attempt: int, pause: float) -> None:
        """Notes at the batch why its handler did not take a segment, and that it is tried again after `pause` seconds.

        `attempt` is the attempt that failed, from 1.
        """
        self._note(segment, problem, attempt, pause)

    def forget_problem(self, segment: HeldSegment) -> None:
        """Removes such a note: the segment is in the handler's hands."""
        self._note(segment, "", 0, 0.0)

    def _note(self, segment: HeldSegment, problem: str, attempt: int, pause: float) -> None:
        self._note_delivery(
            segment=keys.entity(segment.member),
            batch=keys.batch(segment.batch_id),
            member=segment.member,
            token=segment.token,
            problem=problem,
            attempt=attempt,
            most=self._settings.max_delivery_attempts,
            pause=pause,
        )

    def taken(self, segment: HeldSegment) -> None:
        """Removes a segment that its handler has taken. Raises `Superseded`."""
        self._end(segment, park=False)

    def park(self, segment: HeldSegment) -> None:
        """Makes a segment that no handler takes a dead letter. Raises `Superseded`."""
        self._end(segment, park=True)

    def _end(self, segment: HeldSegment, *, park: bool) -> None:
        ended = self._handed_over(
            segment=keys.entity(segment.member),
            batch=keys.batch(segment.batch_id),
            clock=keys.clock(Stage.DELIVER.queue),
            parked=keys.PARKED,
            census=keys.CENSUS,
            latencies=keys.LATENCIES,
            job=keys.job(segment.record.job_id),
            member=segment.member,
            token=segment.token,
            parks=int(park),
            latency=measures.DELIVERY,
            bounds=measures.DELIVERY_BOUNDS,
        )
        if not ended:
            raise Superseded(segment.member)
