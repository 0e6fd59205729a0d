"""The store as singles see it: adds them to the open batch of their lane, finds what a ticket stands for, and gathers.

The singles of a lane have equal options, handler, labels and tenant, so they can be requests of one batch.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple, cast

import msgspec
import redis

from lowtide import tracing
from lowtide.errors import QueueFull, TicketNotFound
from lowtide.options import Options
from lowtide.protocol import (
    BatchRecord,
    Stage,
    TicketId,
    hash_reply,
    keys,
    measures,
    new_batch_id,
    read_record,
)
from lowtide.protocol.changes import NewGathering
from lowtide.settings import Settings
from lowtide.states import BatchState, ProviderName, TicketState
from lowtide.store import scripts
from lowtide.store.connection import redis_errors, redis_time
from lowtide.store.durability import durably
from lowtide.store.recording import (
    allowed_seconds,
    as_text,
    bundle_arguments,
    bundle_like,
    lane_of,
    new_batch_fields,
    new_bundle,
)

_pack = msgspec.msgpack.Encoder().encode
_TRACES_CHARS = 32 * len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 ")
"""Spans of calls that a batch of singles keeps: 32 are the most links of a span of its stages."""
_IN_FLIGHT_SECONDS = 7 * 86_400
"""For so long a request that is in flight can be reused, beyond the seconds that its `reuse` names."""


class NewSingle(NamedTuple):
    """A single that is not recorded yet."""

    payload: bytes
    """The `WaitingSingle`, encoded."""
    size: int
    """Bytes of the whole, also where it is in a file."""
    tokens: int
    """Estimated input tokens."""
    key: str
    """Digest of its key and tenant; "" without a key."""
    fingerprint: str
    """Digest of all its content."""
    asked: str
    """Digest of what goes on the wire; "" where it is not to be reused."""
    file: str
    """The id of its file in the spool; "" where it has none."""
    whole: bytes
    """The content of that file."""
    name: str
    """Its key, for errors."""


_ARGUMENTS = 7
"""Fields of a new single that add.lua is given."""


class Lane(NamedTuple):
    """The options that all singles of one gathering share."""

    options: Options
    name: str
    """Digest of the options."""
    arguments: Mapping[str, Any]
    """The keys and arguments of add.lua that are the same for all."""

    @classmethod
    def of(cls, options: Options, settings: Settings) -> Lane:
        """The lane of singles with these options."""
        same = (new_bundle(options, settings), options.deadline, options.share, options.labels)
        name = hashlib.blake2b(msgspec.json.encode(same, order="deterministic"), digest_size=16).hexdigest()
        fields: NewGathering = {
            **new_bundle(options, settings),
            "stage": Stage.GATHER,
            "labels": dict(options.labels),
            "gathers": name,
            "shares": lane_of(options, settings, total=0, sources=()) or None,
            "kept": settings.ticket_seconds,
        }
        arguments = {
            "gathering": keys.gathering(name),
            "clock": keys.clock(Stage.GATHER.queue),
            "census": keys.CENSUS,
            "files": keys.SINGLE_FILES,
            "batch_prefix": keys.batch(""),
            "batch_member": keys.batch_member(""),
            "singles_prefix": keys.singles(""),
            "waiting_name": measures.SINGLES_WAITING,
            "most": settings.max_singles_waiting,
            "linger": settings.gather_seconds,
            "enough": settings.gather_requests,
            "enough_bytes": settings.gather_bytes,
            "enough_tokens": settings.gather_tokens,
            "allowed": allowed_seconds(options),
            "key_prefix": keys.single_key(""),
            "key_seconds": math.ceil(settings.key_seconds),
            "asked_prefix": keys.asked(""),
            "fields": new_batch_fields(fields),
        }
        return cls(options, name, arguments)


class Added(NamedTuple):
    """The ticket that stands for a single."""

    ticket: str
    fingerprint: str
    """That of the single that the key belongs to; "" where the single is recorded now."""


class Gathered(NamedTuple):
    """The sums over the singles of a batch whose files are in the spool."""

    total: int
    bytes: int
    """Size of the requests' lines."""
    tokens: int
    files: Sequence[str]
    """The ids of the files that the singles waited in."""
    output_tokens: int | None = None
    """Most output tokens of all requests together, as of `Accepted`; None: not counted."""


class Found(NamedTuple):
    """The request that a ticket stands for."""

    batch: BatchRecord
    ordinal: int
    state: TicketState
    is_settled: bool
    """Whether its result is decided. One that is not may be done all the same: its batch has lost its requests."""


def addition(lane: Lane, singles: Sequence[NewSingle], *, reuse: float | None) -> dict[str, Any]:
    """The keys and arguments of add.lua for singles of one lane; `reuse` is in seconds, None for none.

    The current span, if there is one, is that of the call, which the stages of the batch link to.
    """
    return {
        **lane.arguments,
        "batch_id": new_batch_id(),
        "salt": secrets.token_hex(16),
        "reuse": reuse or 0,
        "asked_seconds": math.ceil((reuse or 0) + _IN_FLIGHT_SECONDS),
        "trace": tracing.current().get("traceparent", ""),
        "traces_chars": _TRACES_CHARS,
        "singles": _pack([(as_text(one.payload), *one[1:_ARGUMENTS]) for one in singles]),
    }


def read_addition(reply: Sequence[Any], settings: Settings) -> list[Added]:
    """The tickets in a reply of add.lua. Raises `QueueFull`."""
    if reply[0] == b"full":
        raise QueueFull(int(reply[1]), settings.max_singles_waiting)
    texts = [part.decode() for part in reply[2:]]
    return [Added(ticket, fingerprint) for ticket, fingerprint in zip(texts[::2], texts[1::2], strict=True)]


def read_ticket(ticket: TicketId, found: Mapping[bytes, bytes], settled: bool) -> Found | None:
    """The request that a ticket stands for, from its batch's hash and its bit; None where the store gave out no such.

    - `settled`: whether its result is decided.
    """
    if not found:
        return None
    batch = read_record(BatchRecord, found)
    if (
        batch.state is BatchState.DELETING
        or batch.salt is None
        or ticket.ordinal >= batch.total
        or not ticket.is_of(batch.salt)
    ):
        return None
    state = TicketState.WAITING if batch.state is BatchState.PENDING else TicketState.SENT
    is_done = settled or batch.finished is not None
    return Found(batch, ticket.ordinal, TicketState.DONE if is_done else state, settled)


def not_found(ticket: TicketId, deleted: float | None) -> str:
    """The message about a ticket that stands for nothing; `deleted` is when its batch was deleted, in Unix seconds."""
    if deleted is None:
        return f"no ticket {ticket}: add never returned it here, or its result was deleted more than 30 days ago"
    until = datetime.fromtimestamp(deleted, UTC).isoformat(timespec="seconds")
    return f"the result of ticket {ticket} was kept until {until}: LOWTIDE_TICKET_SECONDS decides how long"


class Singles:
    """Redis scripts around singles. Raises `StoreUnavailable` where Redis does not serve."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis = client
        self._settings = settings
        self._url = settings.redis_url.get_secret_value()

    _add = cached_property(lambda self: scripts.add.load(self._redis))
    _seal = cached_property(lambda self: scripts.seal_singles.load(self._redis))
    _gathered = cached_property(lambda self: scripts.gathered.load(self._redis))

    def add(self, lane: Lane, singles: Sequence[NewSingle], *, reuse: float | None, durable: bool) -> list[Added]:
        """Records singles by one script; returns the ticket of each. Raises `QueueFull` with nothing recorded.

        - `durable`: whether to wait until Redis has them on disk.
        """
        call = addition(lane, singles, reuse=reuse)
        with redis_errors(self._url):
            reply = durably(
                self._redis,
                lambda client: self._add.within(client)(**call),
                replicas=self._settings.replicas_to_wait_for,
                disk=durable,
            )
        return read_addition(reply, self._settings)

    def find(self, ticket: TicketId) -> Found:
        """The request that a ticket stands for. Raises `TicketNotFound`, which says until when it was kept."""
        with redis_errors(self._url), self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.batch(ticket.batch_id))
            pipe.getbit(keys.settled(ticket.batch_id), ticket.ordinal)
            pipe.zscore(keys.DELETED, ticket.batch_id)
            batch, settled, deleted = pipe.execute(raise_on_error=False)
            found = read_ticket(ticket, hash_reply(batch), settled == 1)
        if found is None:
            # One that is being deleted is noted as deleted in a moment.
            is_going = b"salt" in hash_reply(batch) and hash_reply(batch).get(b"state") == b"deleting"
            raise TicketNotFound(not_found(ticket, self.now() if is_going else deleted))
        return found

    def now(self) -> float:
        """The time by Redis's clock, in Unix seconds."""
        with redis_errors(self._url):
            return redis_time(self._redis)

    def seal(self, batch: BatchRecord, token: int) -> int:
        """Closes a batch that gathers; returns the number of its singles, -1 where another worker holds it."""
        with redis_errors(self._url):
            sealed = self._seal(
                batch=keys.batch(batch.id),
                gathering=keys.gathering(batch.gathers or ""),
                singles=keys.singles(batch.id),
                token=token,
            )
        return int(sealed)

    def waiting(self, batch_id: str, first: int, last: int) -> list[bytes]:
        """The singles [first, last) of a batch that gathers, encoded."""
        return cast("list[bytes]", self._redis.lrange(keys.singles(batch_id), first, last - 1))

    def refers_to(self, file: str) -> bool:
        """Whether a waiting single refers to the file of this id."""
        return bool(self._redis.sismember(keys.SINGLE_FILES, file))

    def gathered(self, batch: BatchRecord, token: int, size: Gathered) -> int:
        """Makes a batch whose files are in the spool one like any other.

        Returns whether its work may begin now, or -1 where another worker holds it.
        """
        # On Vertex AI a bundle finds out which requests may share a file, however many there are.
        enough = size.total >= self._settings.linger_requests and batch.provider is not ProviderName.VERTEX
        lane = "" if enough else batch.shares or ""
        gathered = self._gathered(
            batch=keys.batch(batch.id),
            clock=keys.clock(Stage.SUBMIT.queue),
            batches=keys.GATHERED,
            census=keys.CENSUS,
            singles=keys.singles(batch.id),
            waiting_files=keys.SINGLE_FILES,
            lane=keys.lane(lane),
            token=token,
            batch_id=batch.id,
            member=keys.batch_member(batch.id),
            stage=Stage.SUBMIT,
            waiting_name=measures.SINGLES_WAITING,
            batch_prefix=keys.batch(""),
            counted=measures.counted_gathered(size.total),
            total=size.total,
            size=size.bytes,
            tokens=size.tokens,
            output="" if size.output_tokens is None else size.output_tokens,
            allowed="",
            **bundle_arguments(bundle_like(batch, batch.deadline, self._settings), lane, self._settings),
            files=size.files,
        )
        return int(gathered)
