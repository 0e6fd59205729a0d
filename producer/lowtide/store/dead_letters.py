"""The dead letters: segments and batch events that no handler took, and messages that no worker could handle.

The results of a parked segment stay stored. What is parked can be delivered again or dropped. Messages are kept for
people to read.
"""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256
from typing import Any, cast

import msgspec

from lowtide.errors import DeadLetterNotFound
from lowtide.protocol import Member, MemberKind, Stage, delivered, keys
from lowtide.settings import Settings
from lowtide.store import scripts
from lowtide.store.batch_events import BatchEvents
from lowtide.store.batches import Store
from lowtide.store.connection import redis_errors

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_SHOWN_BYTES = 2000
_SEARCHED = 10_000
"""Dead letters of each kind among which one is searched for by its id. Workers keep as many messages."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter."""

    id: str
    """The delivery id of a segment or batch event; a random id of a message."""
    kind: str
    """`segment` or `event` (parked, can be delivered again), or `message` (can only be read and dropped)."""
    time: float
    """The time at which it became a dead letter, in Unix seconds; 0 if unknown."""
    reason: str
    """The last error of the handler, or the fault of the message."""
    batch_id: str | None = None
    """None for a message."""
    detail: dict[str, Any] = {}
    """Of a segment: `job_id`, `segment`, `tries`, and the `handler` of its batch. Of a batch event: `event`, `handler`,
    `tries`. Of a message: its parts."""

    @property
    def parked(self) -> bool:
        """Whether it can be delivered again."""
        return self.kind in {"segment", "event"}


_built = msgspec.json.Decoder(DeadLetter)  # `convert` in two threads at once must not build it


class DeadLetters:
    """Lists the dead letters, delivers them again and drops them.

        letters = DeadLetters()
        for letter in letters.list():
            if letter.parked:
                letters.redeliver(letter.id)

    `settings` has the address of Redis (default: read from `LOWTIDE_*`). Every method raises `StoreUnavailable` if
    Redis does not answer.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._store = Store(self._settings)
        self._url = self._settings.redis_url.get_secret_value()

    _events = cached_property(lambda self: BatchEvents(self._store.redis, self._settings.delivery_backoff))
    _unpark = cached_property(lambda self: scripts.unpark.load(self._store.redis))

    def list(self, *, limit: int = 100) -> list[DeadLetter]:
        """Returns the newest `limit` dead letters of all kinds together, newest first."""
        client = self._store.redis
        with redis_errors(self._url):
            parked = cast("Any", client.zrange(keys.PARKED, 0, limit - 1, desc=True, withscores=True))
            with client.pipeline(transaction=False) as pipe:
                for member, _ in parked:
                    pipe.hgetall(keys.entity(member.decode(errors="replace")))
                segments = pipe.execute(raise_on_error=False)
                for fields in segments:
                    pipe.hget(keys.batch(_batch_of(fields)), "on_result")
                handlers = pipe.execute(raise_on_error=False)
            messages = cast("Any", client.lrange(keys.DEAD_LETTERS, 0, limit - 1))
        found = [
            _parked(member.decode(errors="replace"), score, fields, handler)
            for (member, score), fields, handler in zip(parked, segments, handlers, strict=True)
            if fields
        ]
        found += [_message(raw) for raw in messages]
        return sorted(found, key=lambda letter: letter.time, reverse=True)[:limit]

    def get(self, letter_id: str) -> DeadLetter:
        """Returns the dead letter with this id. Raises `DeadLetterNotFound` if there is none."""
        for letter in self.list(limit=_SEARCHED):
            if letter.id == letter_id:
                return letter
        raise DeadLetterNotFound(f"no dead letter {letter_id:.100}: it was redelivered or dropped, or never existed")

    def redeliver(self, letter_id: str) -> None:
        """Delivers a parked segment or batch event again; its attempts are counted from 1.

        Raises `DeadLetterNotFound` if nothing with this id is parked.
        """
        self._end(letter_id, again=True)

    def drop(self, letter_id: str) -> None:
        """Removes a dead letter. The results of a segment stay stored.

        Raises `DeadLetterNotFound` if there is none with this id.
        """
        letter = self.get(letter_id)
        if letter.parked:
            self._end(letter_id, again=False)
            return
        with redis_errors(self._url):
            for raw in cast("Any", self._store.redis.lrange(keys.DEAD_LETTERS, 0, -1)):
                if _message(raw).id == letter_id:
                    self._store.redis.lrem(keys.DEAD_LETTERS, 1, raw)

    def _end(self, letter_id: str, *, again: bool) -> None:
        try:
            member = delivered(letter_id)
        except ValueError:
            member = Member()
        with redis_errors(self._url):
            ended = (
                self._ended_event(member, again=again)
                if member.partition(":")[0] == MemberKind.EVENT
                else self._ended(member, again=again)
            )
        if not ended:
            raise DeadLetterNotFound(
                f"nothing is parked as {letter_id:.100}: it was redelivered or dropped, or is a message"
            )

    def _ended_event(self, member: Member, *, again: bool) -> bool:
        return self._events.unpark(member) if again else self._events.taken(member)

    def _ended(self, member: Member, *, again: bool) -> bool:
        return bool(
            self._unpark(
                segment=keys.entity(member),
                batch=keys.batch(member.batch if member else ""),
                parked=keys.PARKED,
                clock=keys.clock(Stage.DELIVER.queue),
                census=keys.CENSUS,
                member=member,
                stage=Stage.DELIVER if again else "",
            )
        )


def _batch_of(fields: Any) -> str:
    """The batch of a segment's record; "" for any other record, and for one that is damaged."""
    return fields.get(b"batch_id", b"").decode(errors="replace") if isinstance(fields, dict) else ""


def _parked(member: str, parked_at: float, found: Any, handler: Any) -> DeadLetter:
    """The dead letter of a parked segment or batch event, also of one whose record is damaged.

    - `handler`: what the batch of a segment has as its handler; anything but bytes is left out.
    """
    kind, _, letter_id = member.partition(":")
    try:
        fields = {name.decode(): value.decode(errors="replace") for name, value in found.items()}
        tries = int(fields.get("tries", 0))
        if kind == MemberKind.EVENT:
            batch_id, event = letter_id.split(":")
            detail = {"event": event, "handler": fields[f"on_{event}"], "tries": tries}
        else:
            batch_id = fields["batch_id"]
            detail = {"job_id": fields["job_id"], "segment": int(fields["number"]), "tries": tries}
            if isinstance(handler, bytes):
                detail["handler"] = handler.decode(errors="replace")
        return DeadLetter(
            id=letter_id,
            kind=kind,
            time=parked_at,
            batch_id=batch_id,
            reason=fields.get("problem") or "the handler did not take it",
            detail=detail,
        )
    except (AttributeError, KeyError, ValueError) as error:
        reason = f"its record cannot be read: {type(error).__name__}: {error}"
        return DeadLetter(id=letter_id, kind=kind, time=parked_at, reason=reason)


def _message(raw: bytes) -> DeadLetter:
    """The dead letter of a message, also of an entry that another program wrote."""
    try:
        entry = _decode(raw)
        detail = {name: value for name, value in entry.items() if name not in ("id", "time", "reason")}
        known = {
            "id": entry["id"],
            "kind": "message",
            "time": entry["time"],
            "reason": entry["reason"],
            "detail": detail,
        }
        return msgspec.convert(known, DeadLetter)
    except (KeyError, ValueError, RecursionError):
        text = raw[:_SHOWN_BYTES].decode(errors="replace")
        return DeadLetter(
            id=f"entry-{sha256(raw).hexdigest()[:16]}",
            kind="message",
            time=0.0,
            reason="another program wrote this entry: it is not a dead letter of Lowtide",
            detail={"entry": text},
        )
