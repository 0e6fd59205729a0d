"""Arrivals: singles from producers that do not have this package. See docs/protocol.md.

They wait in a list, each with an id that its producer has chosen. Its key is this id, or its own. So the worker after
one that died may accept a single again: it gets the same ticket.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any, cast

import msgspec
from redis.exceptions import LockError

from lowtide.errors import IdempotencyConflict, InvalidBatch, InvalidRequest, QueueFull
from lowtide.protocol import VERSION, keys
from lowtide.queue import BatchQueue
from lowtide_worker.crashpoints import reach
from lowtide_worker.deadlines import elapsed
from lowtide_worker.events import Event
from lowtide_worker.runtime import Runtime

log = logging.getLogger(__name__)

_AT_ONCE = 20
_LONGEST_SECONDS = 10.0
"""A run ends after this time; the next tick begins another one."""
_TOLD_SECONDS = 30
"""A message that no worker has taken for so long is taken for lost."""
_Id = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.:-]{1,100}\\Z")]
_FOR_THE_PRODUCER = (InvalidRequest, InvalidBatch, IdempotencyConflict)
"""Errors that would be the same at another try, unless the producer changes something."""


class Arrival(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the list: a request, and the options of `BatchQueue.add`."""

    id: _Id
    model: str
    request: dict[str, Any]
    v: int = 1
    on_result: str | None = None
    tenant: str | None = None
    labels: dict[str, str] | None = None
    mode: str | None = None
    max_attempts: int | None = None
    priority: int = 0
    deadline: float | str | None = None
    outcomes: dict[str, str] | None = None
    provider: str | None = None
    kind: str = "generation"
    share: bool | None = None
    reuse: float | None = None


class _Version(msgspec.Struct, frozen=True):
    v: int = 1


_NO_OPTIONS = frozenset({"id", "model", "request", "v"})
_decode_version = msgspec.json.Decoder(_Version).decode
_decode = msgspec.json.Decoder(Arrival).decode


def have_arrived(runtime: Runtime) -> bool:
    """Whether there are singles that no worker accepts right now, and no message says so yet: the caller sends it."""
    with runtime.redis.pipeline(transaction=False) as pipe:
        pipe.exists(keys.ARRIVALS)
        pipe.exists(keys.ARRIVALS_LOCK)
        some, locked = pipe.execute()
    # All workers see them, at each tick. While no worker takes messages, one is enough.
    return bool(some) and not locked and bool(runtime.redis.set(keys.ARRIVALS_TOLD, 1, nx=True, ex=_TOLD_SECONDS))


def accept_arrivals(runtime: Runtime) -> int:
    """Accepts what has arrived, one worker at a time; returns how many singles it has dealt with.

    One that only its producer can correct is refused, and the reason is where its ticket would be.
    Where as many singles wait as may, the others stay in the list until a later run.
    """
    runtime.redis.delete(keys.ARRIVALS_TOLD)
    lock = runtime.redis.lock(keys.ARRIVALS_LOCK, timeout=runtime.settings.lease_seconds, blocking=False)
    if not lock.acquire():
        return 0
    done = left = 0
    full: QueueFull | None = None
    ends = elapsed() + _LONGEST_SECONDS
    queue = BatchQueue(runtime.settings)
    try:
        while full is None and elapsed() < ends:
            some = cast("list[bytes]", runtime.redis.lrange(keys.ARRIVALS, left, left + _AT_ONCE - 1))
            for entry in some:
                accepted = False
                with runtime.oddities.apart("singles", keys.ARRIVALS):
                    try:
                        accepted = _accept(runtime, queue, entry)
                    except QueueFull as error:
                        full = error
                if full is not None:
                    break
                done += accepted
                left += not accepted
            if not some:
                break
            lock.reacquire()
    except LockError:
        # Another worker goes on; what both accept gets one ticket.
        log.warning("arrivals: took longer than its lease", extra=Event.INBOX_SLOW.extra)
        return done
    if full is not None:
        log.warning("arrivals: they wait: %s", full, extra=Event.INBOX_LATER.extra)
    try:
        lock.release()
    except LockError:
        log.warning("arrivals: took longer than its lease", extra=Event.INBOX_SLOW.extra)
    return done


def _accept(runtime: Runtime, queue: BatchQueue, entry: bytes) -> bool:
    """Accepts one single; returns False for one that only a newer worker understands.

    Raises the errors of `add` that may pass: then the single stays where it is.
    """
    try:
        if _decode_version(entry).v > VERSION:
            return False
        arrival = _decode(entry)
    except (ValueError, RecursionError) as error:
        runtime.oddities.dead_letter(f"not a single: {error}", {"queue": keys.ARRIVALS, "message": repr(entry[:2000])})
        runtime.redis.lrem(keys.ARRIVALS, 1, cast("str", entry))
        return True
    reach("arrivals.before-add")
    outcome = _added(queue, arrival)
    reach("arrivals.after-add")
    with runtime.redis.pipeline() as pipe:
        # A ticket stays where a later entry of the same id is refused.
        pipe.set(
            keys.arrived(arrival.id),
            msgspec.json.encode(outcome),
            ex=int(runtime.settings.key_seconds),
            nx="error" in outcome,
        )
        pipe.lrem(keys.ARRIVALS, 1, cast("str", entry))
        pipe.execute()
    return True


def _added(queue: BatchQueue, arrival: Arrival) -> dict[str, str]:
    """The ticket of a single, or the reason why it is refused."""
    options = {name: getattr(arrival, name) for name in arrival.__struct_fields__ if name not in _NO_OPTIONS}
    own = arrival.request.get("key")
    request = arrival.request if own is not None and own != "" else {**arrival.request, "key": arrival.id}
    try:
        return {"ticket": queue.add(request, model=arrival.model, **cast("Any", options)).id}
    except _FOR_THE_PRODUCER as error:
        log.error("single %s is refused: %s", arrival.id, error, extra=Event.INBOX_REFUSED.extra)  # noqa: TRY400 - the trace says nothing more
        return {"error": type(error).__name__, "message": str(error)}
