"""The dead letters: segments that no handler took, and messages that nobody could handle.

Parked segments keep their stored results; they can be delivered again or dropped. Messages are kept to be looked at.
"""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256
from typing import Any, cast

import msgspec

from lowtide.errors import DeadLetterNotFound
from lowtide.protocol import Stage, keys
from lowtide.settings import Settings
from lowtide.store import scripts
from lowtide.store.batches import Store
from lowtide.store.connection import redis_errors

_decode = msgspec.json.decode
_SHOWN_BYTES = 2000


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter. `time` is in Unix seconds; `detail` depends on the kind."""

    id: str
    kind: str
    """`segment` (parked, can be redelivered) or `message` (kept to be looked at)."""
    time: float
    reason: str
    batch_id: str | None = None
    detail: dict[str, Any] = {}


class DeadLetters:
    """Looks at the dead letters and ends them. Raises `StoreUnavailable` where Redis does not serve."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._store = Store(self._settings)
        self._url = self._settings.redis_url.get_secret_value()

    _unpark = cached_property(lambda self: scripts.unpark.load(self._store.redis))

    def list(self, *, limit: int = 100) -> list[DeadLetter]:
        """The newest dead letters of both kinds, newest first."""
        client = self._store.redis
        with redis_errors(self._url):
            parked = cast("Any", client.zrange(keys.PARKED, 0, limit - 1, desc=True, withscores=True))
            with client.pipeline(transaction=False) as pipe:
                for member, _ in parked:
                    pipe.hgetall(keys.entity(member.decode(errors="replace")))
                segments = pipe.execute(raise_on_error=False)
            messages = cast("Any", client.lrange(keys.DEAD_LETTERS, 0, limit - 1))
        found = [
            _segment(member.decode(errors="replace"), score, fields)
            for (member, score), fields in zip(parked, segments, strict=True)
            if fields
        ]
        found += [_message(raw) for raw in messages]
        return sorted(found, key=lambda letter: letter.time, reverse=True)[:limit]

    def get(self, letter_id: str) -> DeadLetter:
        """The dead letter of this id. Raises `DeadLetterNotFound`."""
        for letter in self.list(limit=10_000):
            if letter.id == letter_id:
                return letter
        raise DeadLetterNotFound(f"no dead letter {letter_id}: it was redelivered or dropped")

    def redeliver(self, letter_id: str) -> None:
        """Hands a parked segment to its handler again, all tries anew. Raises `DeadLetterNotFound`."""
        self._end(letter_id, again=True)

    def drop(self, letter_id: str) -> None:
        """Forgets a dead letter. A segment's stored results stay. Raises `DeadLetterNotFound`."""
        letter = self.get(letter_id)
        if letter.kind == "segment":
            self._end(letter_id, again=False)
            return
        with redis_errors(self._url):
            for raw in cast("Any", self._store.redis.lrange(keys.DEAD_LETTERS, 0, -1)):
                if _message(raw).id == letter_id:
                    self._store.redis.lrem(keys.DEAD_LETTERS, 1, raw)

    def _end(self, letter_id: str, *, again: bool) -> None:
        job, colon, number = letter_id.rpartition(":")
        member = keys.segment_member(job, int(number)) if colon and number.isdecimal() else ""
        batch_id = job.rpartition("-")[0]
        with redis_errors(self._url):
            ended = self._unpark(
                segment=keys.entity(member),
                batch=keys.batch(batch_id),
                parked=keys.PARKED,
                clock=keys.clock(Stage.DELIVER.queue),
                member=member,
                stage=Stage.DELIVER if again else "",
            )
        if not ended:
            raise DeadLetterNotFound(f"no parked segment {letter_id}: it was redelivered or dropped, or is a message")


def _segment(member: str, parked_at: float, found: Any) -> DeadLetter:
    """A parked segment; one whose record is damaged is shown all the same."""
    letter_id = member.removeprefix("segment:")
    try:
        fields = {name.decode(): value.decode() for name, value in found.items()}
        detail = {"job_id": fields["job_id"], "segment": int(fields["number"]), "tries": int(fields.get("tries", 0))}
        return DeadLetter(
            id=letter_id,
            kind="segment",
            time=parked_at,
            batch_id=fields["batch_id"],
            reason=fields.get("problem") or "the handler did not take it",
            detail=detail,
        )
    except (AttributeError, KeyError, ValueError) as error:
        reason = f"its record cannot be read: {type(error).__name__}: {error}"
        return DeadLetter(id=letter_id, kind="segment", time=parked_at, reason=reason)


def _message(raw: bytes) -> DeadLetter:
    """A message; an entry that nobody of ours wrote is shown all the same."""
    try:
        entry = _decode(raw, type=dict[str, Any])
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
            reason="this entry is no dead letter of Lowtide's",
            detail={"entry": text},
        )
