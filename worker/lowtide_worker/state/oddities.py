"""Things that are not as they should be: passed over and counted, kept as dead letters, or put back on the clock."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, cast

import redis

from lowtide.protocol import MemberKind, Queue, Stage, keys
from lowtide.redaction import redacted
from lowtide.store import redis_time
from lowtide_worker.events import Event
from lowtide_worker.state import scripts
from lowtide_worker.state.held import Superseded

log = logging.getLogger(__name__)

_DEAD_LETTERS_KEPT = 10_000
_REASON_CHARS = 500
_EXCERPT_BYTES = 2000
_AUDITED_AT_ONCE = 500


class Oddities:
    """Lets one odd thing stop no other."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._put_in_place = scripts.put_back.load(client)
        self._drop_undelivered = scripts.drop_undelivered.load(client)

    def count(self, counter: str, amount: int) -> None:
        """Adds to one of the totals."""
        self._redis.hincrby(keys.COUNTERS, counter, amount)

    @contextmanager
    def apart(self, what: str, name: object) -> Iterator[None]:
        """Lets one of many things from outside fail by itself: it is logged and counted, and the loop goes on.

        What concerns them all is raised: a store that does not serve, or another worker that has taken over.
        """
        try:
            yield
        except (Superseded, redis.ConnectionError, redis.TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever is odd about it, the others have their turn
            log.error(  # noqa: TRY400 - the trace says nothing more
                "%s: %.200r is ignored: %s: %s",
                *(what, name, type(error).__name__, error),
                extra=Event.ITEM_PASSED_OVER.extra,
            )
            self.count(f"odd_{what}", 1)

    def put_back_on_clock(self, keep: Callable[[], None]) -> int:
        """Makes due whatever has a stage to come and no place on the clock; returns how many there were."""
        lost = 0
        # Without the sweep, which is at work. In a fixed order, so that the tests' state machine can repeat a run.
        for kind in (MemberKind.BATCH, MemberKind.JOB, MemberKind.SEGMENT, MemberKind.EVENT):
            found = self._redis.scan_iter(keys.entity(f"{kind}:*"), count=_AUDITED_AT_ONCE)
            names = (name.decode(errors="replace") for name in found)
            while some := list(islice(names, _AUDITED_AT_ONCE)):
                lost += self._put_back([name.removeprefix(keys.PREFIX) for name in some])
                keep()
        return lost

    def _put_back(self, members: Sequence[str]) -> int:
        with self._redis.pipeline(transaction=False) as pipe:
            for member in members:
                pipe.hget(keys.entity(member), "stage")
                for queue in Queue:
                    pipe.zscore(keys.clock(queue), member)
            replies = iter(pipe.execute(raise_on_error=False))
        lost = 0
        for member in members:
            stage = next(replies)
            placed = [next(replies) for _ in Queue]
            if stage and placed == [None] * len(placed):
                with self.apart("entities", member):
                    queue = Stage(_value(stage).decode()).queue
                    # What was read may have changed since, even between two of the reads.
                    lost += self._put_in_place(
                        entity=keys.entity(member),
                        clock=keys.clock(queue),
                        other_clocks=[keys.clock(other) for other in Queue if other is not queue],
                        member=member,
                        stage=stage,
                    )
        return lost

    def drop_undelivered(self, keep: Callable[[], None]) -> int:
        """Drops segments without a record from the set of undelivered ones; returns how many there were."""
        dropped = start = 0
        while members := cast("list[bytes]", self._redis.zrange(keys.UNDELIVERED, start, start + _AUDITED_AT_ONCE - 1)):
            gone = self._drop_undelivered(undelivered=keys.UNDELIVERED, members=members)
            dropped += gone
            start += len(members) - gone
            keep()
        return dropped

    def dead_letter(self, reason: str, what: Mapping[str, object]) -> None:
        """Keeps a message that no worker could handle, for people to inspect, and counts it."""
        reason = "".join(char if char.isprintable() else "?" for char in redacted(reason)[:_REASON_CHARS])
        log.error("dead letter: %s", reason, extra=Event.DEAD_LETTER_STORED.extra)
        about = {"id": uuid.uuid4().hex, "time": redis_time(self._redis), "reason": reason}
        shown = {name: redacted(value) if isinstance(value, str) else value for name, value in what.items()}
        entry = json.dumps({**shown, **about}, default=repr)
        with self._redis.pipeline() as pipe:
            pipe.lpush(keys.DEAD_LETTERS, entry)
            pipe.ltrim(keys.DEAD_LETTERS, 0, _DEAD_LETTERS_KEPT - 1)
            pipe.hincrby(keys.COUNTERS, "dead_letters", 1)
            pipe.execute()

    def keep_message(self, reason: str, queue: str, raw: bytes) -> None:
        """Keeps the beginning of a message that never became a task as a dead letter."""
        excerpt = raw[:_EXCERPT_BYTES].decode(errors="replace")
        self.dead_letter(reason, {"queue": queue, "bytes": len(raw), "message": excerpt})


def _value(reply: Any) -> bytes:
    """A reply of a pipeline; raises the error that it may be."""
    if isinstance(reply, Exception):
        raise reply
    return bytes(reply)
