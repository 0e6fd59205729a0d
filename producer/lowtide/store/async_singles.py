"""The store as the tickets of one event loop see it: the scripts of `Singles`, over redis-py's client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from redis.commands.core import AsyncScript

from lowtide.protocol import BatchRecord, TicketId, keys
from lowtide.settings import Settings
from lowtide.store import scripts
from lowtide.store.connection import connect_async, redis_errors
from lowtide.store.durability import durably_async
from lowtide.store.result_places import ResultPlaces, places_call, read_places
from lowtide.store.scripting import Declaration
from lowtide.store.singles import Added, Found, Lane, NewSingle, addition, not_found, read_addition, read_ticket

_CONNECTIONS = 4
"""Most connections of an event loop. Calls wait for one of them, so that thousands of tasks open no thousands."""


class TicketReply(NamedTuple):
    """The batch of some tickets, as Redis has it."""

    batch: Mapping[bytes, bytes]
    settled: bytes
    """The bitmap of the requests that have their results."""
    deleted: float | None
    """When the batch was deleted, in Unix seconds."""

    def find(self, ticket: TicketId) -> Found | None:
        """The request that a ticket of the batch stands for; None where the store gave out no such."""
        at, bit = divmod(ticket.ordinal, 8)
        is_settled = at < len(self.settled) and bool(self.settled[at] >> 7 - bit & 1)
        return read_ticket(ticket, self.batch, is_settled)

    def not_found(self, ticket: TicketId) -> str:
        """The message about a ticket that stands for nothing."""
        return not_found(ticket, self.deleted)


class AsyncSingles:
    """Redis scripts around singles, for one event loop. Raises `StoreUnavailable` where Redis does not serve."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.redis_url.get_secret_value()
        self._redis = connect_async(settings)
        self._add = self._loaded(scripts.add)
        self._find = self._loaded(scripts.find_results)
        self._free = asyncio.Semaphore(_CONNECTIONS)

    def _loaded(self, declaration: Declaration[...]) -> AsyncScript:
        return self._redis.register_script(declaration.text)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[None]:
        """The turn of a call, with Redis's errors translated."""
        async with self._free:
            with redis_errors(self._url):
                yield

    async def add(self, lane: Lane, singles: Sequence[NewSingle], *, reuse: float | None, durable: bool) -> list[Added]:
        """Records singles by one script: see `Singles.add`."""
        names, values = scripts.add.flatten(**addition(lane, singles, reuse=reuse))

        async def write(client: Any) -> Any:
            return await self._add(keys=names, args=values, client=client)

        async with self._connection():
            replicas = self._settings.replicas_to_wait_for
            reply = await durably_async(self._redis, write, replicas=replicas, disk=durable)
        return read_addition(reply, self._settings)

    async def tickets(self, batch_id: str) -> TicketReply:
        """Reads what is known of all tickets of a batch, by one call."""
        async with self._connection(), self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.batch(batch_id))
            pipe.get(keys.settled(batch_id))
            pipe.zscore(keys.DELETED, batch_id)
            pipe.time()
            batch, settled, deleted, (seconds, micros) = await pipe.execute()
        if batch.get(b"state") == b"deleting" and b"salt" in batch:
            # It is noted as deleted in a moment.
            deleted = seconds + micros / 1e6
        return TicketReply(batch, settled or b"", deleted)

    async def result_places(self, batch: BatchRecord, ordinals: Sequence[int]) -> list[ResultPlaces]:
        """The places where the results of a batch's requests may be, by one call."""
        names, values = scripts.find_results.flatten(**places_call(batch.id, batch.bundle, ordinals))
        async with self._connection():
            return read_places(await self._find(keys=names, args=values))

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()
