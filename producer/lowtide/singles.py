"""Singles: requests that are added one at a time, and that Lowtide makes into batches."""

from __future__ import annotations

import hashlib
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from types import NoneType
from typing import Any, Unpack

import msgspec

from lowtide import openai, tracing
from lowtide.backoff import Backoff
from lowtide.budgets import labels_under
from lowtide.errors import (
    IdempotencyConflict,
    InvalidRequest,
    LowtideError,
    QueueFull,
    SpoolError,
    too_large,
    uncodable,
)
from lowtide.intake import RequestLike
from lowtide.models import Request
from lowtide.options import Options
from lowtide.protocol import TENANT, Stage, WaitingSingle, encode_single, new_batch_id, single_file
from lowtide.settings import Settings
from lowtide.shaping import as_item, key_text, shaper_of
from lowtide.single_options import Intended, SingleOptions, intended
from lowtide.spending import check_budgets, weighing
from lowtide.spool import Spool
from lowtide.states import ProviderName
from lowtide.store import Added, NewSingle, Store
from lowtide.tickets import Ticket

_AT_ONCE = 500
"""Most singles in one call of Redis: a script of so many takes a few milliseconds."""
_BYTES_AT_ONCE = 1 << 20
_CHECKED_SECONDS = 1.0
"""For so long a producer takes it for granted that the store and the workers are as it found them."""
_LINE_BYTES = 64
"""Bytes of a request's line beside its body."""
_NO_KEY = "-"
"""Stands for the key of a request that has none while it is shaped."""
_PLAIN = (str, int, float, bool, NoneType)
_FULL = Backoff(first=0.05, cap=1.0)
_encode = msgspec.json.Encoder().encode


def new_singles(
    settings: Settings, wanted: Intended, requests: Iterable[RequestLike], *, key: str | None = None
) -> list[NewSingle]:
    """Checks requests and brings them into the provider's form.

    Raises `InvalidRequest`, with the position, and `InvalidBatch` where a budget can never pay for a request.
    """
    options = wanted.lane.options
    most = settings.max_job_bytes(options.mode, options.provider)
    shape = _shapes(options, settings)
    has_budget = labels_under(settings.budgets, options.labels)
    weigh = weighing(options.model, options.kind, settings) if has_budget else None
    scope = hashlib.blake2b(options.labels.get(TENANT, "").encode(), digest_size=16)
    of_lane = _digest(scope, wanted.lane.name.encode())
    of_wire = _digest(scope, f"{options.provider} {options.kind} {options.model}".encode())
    found = []
    for position, given in enumerate(requests):
        item, its_key = _keyed(given, key, position)
        try:
            shaped = shape(item)
        except InvalidRequest as error:
            # A key that is refused may be long, or not text.
            known = None if error.field == "key" else its_key or None
            raise error.at(position, known) from error.__cause__
        except (RecursionError, UnicodeEncodeError) as error:
            raise uncodable(error).at(position, its_key or None) from None
        its_key = shaped.key if shaped.key != _NO_KEY or its_key else ""
        body = shaped.body
        if len(body) + _LINE_BYTES > most:
            raise too_large(len(body) + _LINE_BYTES, most).at(position, its_key or None)
        if weigh is not None:
            _, cost = weigh(body, shaped.tokens)
            check_budgets(options, settings, least=cost, most=cost)
        metadata = _encode(shaped.metadata)
        whole = encode_single(WaitingSingle(its_key, shaped.tokens, msgspec.Raw(metadata), msgspec.Raw(body)))
        file, payload = "", whole
        if len(whole) > settings.single_bytes:
            file = new_batch_id()
            payload = encode_single(WaitingSingle("", shaped.tokens, file=file))
        found.append(
            NewSingle(
                payload,
                len(whole),
                shaped.tokens,
                _digest(scope, its_key.encode()).hexdigest() if its_key else "",
                _digest(of_lane, metadata, body).hexdigest(),
                _digest(of_wire, body).hexdigest() if wanted.reuse else "",
                file,
                whole if file else b"",
                its_key,
            )
        )
    return found


def _digest(start: Any, *parts: bytes) -> Any:
    digest = start.copy()
    for part in parts:
        digest.update(b"%d " % len(part))
        digest.update(part)
    return digest


def _shapes(options: Options, settings: Settings) -> Any:
    def fresh() -> Any:
        return shaper_of(
            options.provider, model=options.model, kind=options.kind, unknown_fields=settings.unknown_fields
        ).shape

    if options.provider is ProviderName.VERTEX:
        # Groups are found when the batch is cut: one shaper would refuse requests that differ too much.
        return lambda item: fresh()(item)
    return fresh()


def _keyed(given: object, key: str | None, position: int) -> tuple[object, str]:
    """A request with the key by which its result is known, or with a placeholder; and the key, "" for none."""
    item = as_item(given)
    if isinstance(item, Request):
        own: object = item.key
    elif isinstance(item, Mapping):
        own = item.get("custom_id" if openai.is_line(item) else "key")
    else:
        return item, ""
    try:
        own = key_text(own)
    except InvalidRequest as error:
        raise error.at(position, None) from None
    if own is None or own == "":
        stands = _NO_KEY if key is None else key
        keyed = msgspec.structs.replace(item, key=stands) if isinstance(item, Request) else {**item, "key": stands}
        return keyed, key or ""
    if key is not None and own != key:
        raise InvalidRequest("given twice, and differs from key=; give it once", field="key", position=position)
    # What is no key is refused when the request is shaped.
    return item, own if isinstance(own, str) else ""


def add_span(wanted: Intended) -> AbstractContextManager[None]:
    """Returns the span of one call that adds singles."""
    options = wanted.lane.options
    about = tracing.of_model(options.model, options.provider, options.kind)
    return tracing.span("add", Stage.GATHER.queue, "PRODUCER", about)


def check_conflict(single: NewSingle, added: Added) -> None:
    """Raises `IdempotencyConflict` where the key of a single belongs to a ticket with other content."""
    if added.fingerprint and added.fingerprint != single.fingerprint:
        # A ticket is for those only whom add has given it.
        batch_id = added.ticket.partition(".")[0]
        raise IdempotencyConflict(
            f"key {single.name!r:.200} belongs to other content, in batch {batch_id}; use a new key for new content"
        )


def surplus(singles: Sequence[NewSingle], added: Sequence[Added]) -> list[NewSingle]:
    """Returns the singles that an earlier ticket stands for."""
    return [single for single, one in zip(singles, added, strict=True) if one.fingerprint]


def chunks(singles: Sequence[NewSingle]) -> Iterator[Sequence[NewSingle]]:
    """Divides singles into those that one call of Redis may have."""
    first = size = 0
    for place, single in enumerate(singles):
        if place > first and (place - first == _AT_ONCE or size + len(single.payload) > _BYTES_AT_ONCE):
            yield singles[first:place]
            first, size = place, 0
        size += len(single.payload)
    if first < len(singles):
        yield singles[first:]


def pauses(wanted: Intended) -> Iterator[float]:
    """Yields the seconds to wait before each further try while as many singles wait as may; none at the end."""
    deadline = time.monotonic() + (wanted.block or 0)
    for tries in itertools.count():
        if time.monotonic() >= deadline:
            return
        yield _FULL.seconds(tries)


class SingleQueue(ABC):
    """The part of `BatchQueue` that takes requests one at a time."""

    settings: Settings
    _store: Store
    _spool: Spool

    def __init__(self) -> None:
        self._lanes: dict[object, Intended] = {}
        self._checked_lanes: dict[str, float] = {}

    @abstractmethod
    def check(self, options: Options) -> None:
        """Checks all that is needed before anything is written."""

    def add(
        self, request: RequestLike, *, model: str, key: str | None = None, **options: Unpack[SingleOptions]
    ) -> Ticket:
        """Adds one request; returns its ticket as soon as it is recorded. Lowtide sends it in a batch with others.

        - `request`: a `Request`, or a mapping in the SDK's inline shape or the REST line shape. It needs no key.
        - `model`: the model that answers it, as in `gemini-3.5-flash`.
        - `key`: a name for this request, as its own field `key`; at most 16 KiB. To add the same content under the same
          key and tenant again within `LOWTIDE_KEY_SECONDS` returns the same ticket. The result has it as its key; that
          of a request without a key is the ticket's id. Default None: the request's own key, or none.
        - options: see `SingleOptions`.

        Raises:

        - `InvalidRequest`: the request cannot be sent.
        - `InvalidBatch`: an option cannot be used. `TypeError`: there is no option of this name.
        - `IdempotencyConflict`: the key belongs to other content.
        - `QueueFull`: `LOWTIDE_MAX_SINGLES_WAITING` singles wait already.
        - `StoreUnavailable`: it may be recorded: add it again under the same key; without one it may be asked twice.
        - `SpoolError`, `UnsupportedServer`, `InstallationMismatch`: as `submit` does.

        Example::

            ticket = BatchQueue().add(
                Request(contents="Describe a blue mug."), model="gemini-3.5-flash", key="order-17", tenant="acme"
            )
            print(ticket.result(timeout=3600).text)
        """
        wanted = self._wanted(model, options)
        with add_span(wanted):
            return self._added(wanted, new_singles(self.settings, wanted, [request], key=key))[0]

    def add_many(
        self, requests: Iterable[RequestLike], *, model: str, **options: Unpack[SingleOptions]
    ) -> list[Ticket]:
        """Adds many requests, each with a ticket of its own; returns the tickets in their order.

        It is to `add` as one journey is to many: 500 requests reach Redis in one call. All are checked before the first
        is recorded. One whose key belongs to other content stops no other: `IdempotencyConflict`, of the first of them,
        is raised when all others are recorded. After `QueueFull` or `StoreUnavailable` any of them may be recorded: add
        them again under the same keys. Parameters and errors are those of `add`.
        """
        wanted = self._wanted(model, options)
        with add_span(wanted):
            return self._added(wanted, new_singles(self.settings, wanted, requests))

    def ticket(self, ticket_id: str) -> Ticket:
        """Returns the ticket of this id, as `Ticket.id` gave it. Raises `TicketNotFound`."""
        ticket = Ticket(ticket_id, self._store, self._spool)
        ticket.status()
        return ticket

    def parts(self) -> tuple[Settings, Store, Spool]:
        """Returns what the tickets of an event loop share with this queue."""
        return self.settings, self._store, self._spool

    def intended(self, model: str, given: SingleOptions) -> Intended:
        """Returns the options after all checks that need no call. Most calls have those of an earlier call."""
        # A mapping has no hash, and a deadline may pass.
        plain = "deadline" not in given and all(isinstance(value, _PLAIN) for value in (model, *given.values()))
        name = (model, *sorted(given.items())) if plain else ()
        wanted = self._lanes.get(name) if plain else None
        if wanted is None:
            wanted = intended(self.settings, model, given)
            if plain:
                if len(self._lanes) >= _AT_ONCE:
                    self._lanes.clear()
                self._lanes[name] = wanted
        return wanted

    def is_checked(self, wanted: Intended) -> bool:
        """Returns whether the store and the workers were checked for these options a moment ago."""
        return time.monotonic() - self._checked_lanes.get(wanted.lane.name, -_CHECKED_SECONDS) < _CHECKED_SECONDS

    def check_lane(self, wanted: Intended) -> None:
        """Checks the store and the workers for these options: see `BatchQueue.check`."""
        if len(self._checked_lanes) >= _AT_ONCE:
            self._checked_lanes.clear()
        self.check(wanted.lane.options)
        self._checked_lanes[wanted.lane.name] = time.monotonic()

    def _wanted(self, model: str, given: SingleOptions) -> Intended:
        wanted = self.intended(model, given)
        if not self.is_checked(wanted):
            self.check_lane(wanted)
        return wanted

    def _added(self, wanted: Intended, singles: Sequence[NewSingle]) -> list[Ticket]:
        tickets: list[Ticket] = []
        refused: LowtideError | None = None
        for some in chunks(singles):
            for single, added in zip(some, self._recorded(wanted, some), strict=True):
                try:
                    check_conflict(single, added)
                except IdempotencyConflict as error:
                    refused = refused or error
                tickets.append(Ticket(added.ticket, self._store, self._spool))
        if refused is not None:
            raise refused
        return tickets

    def _recorded(self, wanted: Intended, singles: Sequence[NewSingle]) -> list[Added]:
        """Writes the files of large singles, then records all by one script.

        After an error other than `QueueFull`, Redis may refer to the files: the sweep removes those that it does not.
        """
        self.write_files(singles)
        try:
            added = self._waited_for_room(wanted, singles)
        except QueueFull:
            self.remove_files(singles)
            raise
        self.remove_files(surplus(singles, added))
        return added

    def write_files(self, singles: Iterable[NewSingle]) -> None:
        """Writes the files of large singles. Raises `SpoolError`."""
        for single in singles:
            if single.file:
                self._spool.put(single_file(single.file), single.whole)

    def remove_files(self, singles: Iterable[NewSingle]) -> None:
        """Removes the files of singles that are not recorded; the sweep removes those that cannot be removed now."""
        for file in filter(None, (single.file for single in singles)):
            with suppress(SpoolError):
                self._spool.delete(single_file(file))

    def _waited_for_room(self, wanted: Intended, singles: Sequence[NewSingle]) -> list[Added]:
        for pause in pauses(wanted):
            with suppress(QueueFull):
                return self._at_once(wanted, singles)
            time.sleep(pause)
        return self._at_once(wanted, singles)

    def _at_once(self, wanted: Intended, singles: Sequence[NewSingle]) -> list[Added]:
        return self._store.singles.add(wanted.lane, singles, reuse=wanted.reuse, durable=wanted.durable)
