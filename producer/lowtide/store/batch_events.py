"""Batch events in the store: what a handler reports of one, and its end.

A batch event is made by the script that ends its batch, or records it. It is an entity of its own, so that neither the
retention nor the deletion of the batch can lose it.
"""

from __future__ import annotations

from functools import cached_property
from typing import cast

import redis

from lowtide.backoff import Backoff
from lowtide.protocol import EventRecord, Member, Stage, hash_reply, keys, read_record
from lowtide.redaction import problem_text
from lowtide.store import scripts


class BatchEvents:
    """Redis scripts around batch events. `backoff` has the pauses after failures."""

    def __init__(self, client: redis.Redis, backoff: Backoff) -> None:
        self._redis = client
        self._backoff = backoff
        self._clock = keys.clock(Stage.NOTIFY.queue)

    _started = cached_property(lambda self: scripts.started.load(self._redis))
    _end = cached_property(lambda self: scripts.end_event.load(self._redis))
    _hand_back = cached_property(lambda self: scripts.hand_back_event.load(self._redis))
    _note = cached_property(lambda self: scripts.note_event.load(self._redis))
    _park = cached_property(lambda self: scripts.park_event.load(self._redis))
    _unpark = cached_property(lambda self: scripts.unpark_event.load(self._redis))

    def record(self, member: Member) -> EventRecord | None:
        """Returns a batch event with the copy of its batch; None where it has ended. Raises `DamagedRecord`."""
        found = cast("dict[bytes, bytes]", self._redis.hgetall(keys.entity(member)))
        return read_record(EventRecord, hash_reply(found)) if found else None

    def started(self, member: Member, attempt: int) -> int:
        """Counts a start of an attempt; returns how often this one has started, 0 if it is over."""
        return int(self._started(segment=keys.entity(member), attempt=attempt))

    def taken(self, member: Member, token: int | None = None) -> bool:
        """Ends a batch event. Returns whether there was one, and no other worker holds it.

        - `token`: that of the worker that holds it; None: a handler reports that it has taken it.
        """
        return bool(
            self._end(
                event=keys.entity(member),
                clock=self._clock,
                parked=keys.PARKED,
                census=keys.CENSUS,
                batch=keys.batch(member.batch),
                member=member,
                token="" if token is None else token,
            )
        )

    def hand_back(self, member: Member, attempt: int, error: str) -> None:
        """Gives a batch event back: its next attempt is made after a pause, which grows with `attempt`."""
        self._hand_back(
            event=keys.entity(member),
            clock=self._clock,
            parked=keys.PARKED,
            batch=keys.batch(member.batch),
            member=member,
            pause=self._backoff.seconds(attempt - 1),
            attempt=attempt,
            problem=problem_text(error),
        )

    def note_problem(self, member: Member, problem: str) -> None:
        """Notes at the batch why its handler could not be given a batch event."""
        self._note(batch=keys.batch(member.batch), problem=problem)

    def park(self, member: Member, token: int, kept: float) -> bool:
        """Makes a batch event a dead letter, for `kept` seconds. Returns whether no other worker holds it."""
        return bool(
            self._park(
                event=keys.entity(member),
                clock=self._clock,
                parked=keys.PARKED,
                census=keys.CENSUS,
                member=member,
                token=token,
                kept=kept,
            )
        )

    def unpark(self, member: Member) -> bool:
        """Delivers a parked batch event again. Returns whether it was parked."""
        return bool(
            self._unpark(
                event=keys.entity(member), clock=self._clock, parked=keys.PARKED, census=keys.CENSUS, member=member
            )
        )
