"""`AsyncTicket`: a ticket for code that must not block its event loop.

The tickets of an event loop wait together: those of one batch are read by one call when Redis has notified of a change
of the batch, however many they are. No thread waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from lowtide.errors import LowtideError, QueueFull, SpoolError, StoreUnavailable, TicketNotFound, WaitTimeout
from lowtide.lookup import ResultFinder, not_in_spool
from lowtide.models import Result
from lowtide.protocol import BatchRecord, TicketId, keys
from lowtide.settings import Settings
from lowtide.single_options import Intended
from lowtide.singles import pauses
from lowtide.spool import Spool
from lowtide.states import TicketState
from lowtide.store import Added, AsyncNotified, NewSingle, Store
from lowtide.store.async_singles import AsyncSingles
from lowtide.tickets import TicketStatus, lost_result

_AT_ONCE = 500
"""Most results that are read in one call."""
_CLOSED = "the queue was closed while a ticket was awaited; its request continues, and another queue can await it"


class AsyncTicket:
    """`Ticket` with `await`: to await the ticket itself is to await its result.

    It holds only the id: each call reads the present state, and raises what the methods of `Ticket` raise.

    Example::

        ticket = await queue.add({"contents": "Describe a blue mug."}, model="gemini-3.5-flash")
        print((await ticket).text)
    """

    def __init__(self, ticket_id: str, tickets: Tickets) -> None:
        try:
            self._parts = TicketId.parse(ticket_id)
        except ValueError as error:
            raise TicketNotFound(str(error)) from None
        self.id = ticket_id
        self._tickets = tickets

    def __repr__(self) -> str:
        return f"AsyncTicket({self.id!r})"

    def __await__(self) -> Generator[Any, None, Result]:
        return self.result().__await__()

    async def status(self) -> TicketStatus:
        """Returns the state now, with the result where there is one: see `Ticket.status`."""
        [found] = await self._tickets.statuses(self._parts.batch_id, [self._parts])
        if isinstance(found, LowtideError):
            raise found
        return found

    async def result(self, timeout: float | None = None) -> Result:  # noqa: ASYNC109 - as Ticket.result has it
        """Waits until the result is there; returns it: see `Ticket.result`. Raises `WaitTimeout`."""
        try:
            async with asyncio.timeout(timeout):
                return await self._tickets.result(self._parts)
        except TimeoutError:
            raise WaitTimeout(f"ticket {self.id} has no result after {timeout:g} s") from None


async def opened(settings: Settings, store: Store, spool: Spool) -> AsyncGenerator[Tickets, None]:
    """Yields the tickets of the running event loop, and closes their connections when it is closed.

    An event loop that shuts down closes the asynchronous generators that it has begun.
    """
    tickets = Tickets(settings, store, spool)
    try:
        yield tickets
    finally:
        await tickets.close()


class _Watch:
    """The tickets of one batch that are waited for."""

    def __init__(self) -> None:
        self.waiting: dict[TicketId, list[asyncio.Future[Result]]] = {}
        self.notified: AsyncNotified | None = None
        """The notifications of the batch; None until they are subscribed to."""
        self.task: asyncio.Task[None] | None = None
        self.has_new = False
        """Whether a ticket came after the last read."""


class Tickets:
    """Reads the tickets of one event loop, and waits for their results."""

    def __init__(self, settings: Settings, store: Store, spool: Spool) -> None:
        self._singles = AsyncSingles(settings)
        self._store = store
        self._spool = spool
        self._watches: dict[str, _Watch] = {}

    async def close(self) -> None:
        """Ends all waits for results, and closes the connections. Those who wait get `StoreUnavailable`."""
        ended = []
        for watch in self._watches.values():
            self._fail(watch, list(watch.waiting), StoreUnavailable(_CLOSED))
            if watch.task is not None:
                watch.task.cancel()
                ended.append(watch.task)
        self._watches.clear()
        await asyncio.gather(*ended, return_exceptions=True)
        await self._singles.close()

    async def recorded(self, wanted: Intended, singles: Sequence[NewSingle]) -> list[Added]:
        """Records singles by one script, waiting for room as long as the options say. Raises `QueueFull`."""
        for pause in pauses(wanted):
            with suppress(QueueFull):
                return await self._at_once(wanted, singles)
            await asyncio.sleep(pause)
        return await self._at_once(wanted, singles)

    async def _at_once(self, wanted: Intended, singles: Sequence[NewSingle]) -> list[Added]:
        return await self._singles.add(wanted.lane, singles, reuse=wanted.reuse, durable=wanted.durable)

    async def statuses(self, batch_id: str, tickets: Sequence[TicketId]) -> list[TicketStatus | LowtideError]:
        """Returns the state of each of these tickets of one batch, in their order.

        In the place of one that cannot be read is its error: `TicketNotFound` or `SpoolError`.
        """
        reply = await self._singles.tickets(batch_id)
        found = {ticket: reply.find(ticket) for ticket in tickets}
        stored = {
            ticket: one
            for ticket, one in found.items()
            if one is not None and one.state is TicketState.DONE and not lost_result(str(ticket), one)
        }
        results: dict[int, Result] = {}
        problems: dict[TicketId, LowtideError] = {}
        if stored:
            batch = next(iter(stored.values())).batch
            try:
                results = await self._results(batch, sorted({one.ordinal for one in stored.values()}))
            except SpoolError as error:
                problems = dict.fromkeys(stored, error)
            else:
                missing = [ticket for ticket in stored if batch.finished and ticket.ordinal not in results]
                problems = {ticket: not_in_spool(f"the result of ticket {ticket}", batch_id) for ticket in missing}
        if problems:
            # The batch may have been deleted meanwhile.
            reply = await self._singles.tickets(batch_id)
            found = {ticket: one if reply.find(ticket) else None for ticket, one in found.items()}
        statuses: list[TicketStatus | LowtideError] = []
        for ticket, one in found.items():
            if one is None:
                statuses.append(TicketNotFound(reply.not_found(ticket)))
            elif ticket in problems:
                statuses.append(problems[ticket])
            else:
                result = lost_result(str(ticket), one) or results.get(one.ordinal)
                # Between the decision about a row and its being stored, the request is not done yet.
                state = TicketState.SENT if one.state is TicketState.DONE and result is None else one.state
                statuses.append(TicketStatus(id=str(ticket), state=state, batch_id=batch_id, result=result))
        return statuses

    async def _results(self, batch: BatchRecord, ordinals: Sequence[int]) -> dict[int, Result]:
        finder = ResultFinder(batch.id, self._store, self._spool)
        results: dict[int, Result] = {}
        for first in range(0, len(ordinals), _AT_ONCE):
            some = ordinals[first : first + _AT_ONCE]
            places = await self._singles.result_places(batch, some)
            results |= await asyncio.to_thread(finder.results, batch, some, places)
        return results

    async def result(self, ticket: TicketId) -> Result:
        """Waits for the result of a ticket. Raises `TicketNotFound`, `StoreUnavailable` and `SpoolError`."""
        with self._joined(ticket) as future:
            return await future

    @contextmanager
    def _joined(self, ticket: TicketId) -> Generator[asyncio.Future[Result], None, None]:
        batch_id = ticket.batch_id
        watch = self._watches.get(batch_id)
        if watch is None:
            watch = self._watches[batch_id] = _Watch()
            watch.task = asyncio.create_task(self._watch(batch_id, watch))
        elif watch.notified is not None and not watch.has_new:
            watch.notified.tell(watch.notified.state)
        watch.has_new = True
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        watch.waiting.setdefault(ticket, []).append(future)
        try:
            yield future
        finally:
            futures = watch.waiting.get(ticket, [])
            if future in futures:
                futures.remove(future)
            if not futures:
                watch.waiting.pop(ticket, None)
            if not watch.waiting and watch.task is not None and self._watches.get(batch_id) is watch:
                del self._watches[batch_id]
                watch.task.cancel()

    async def _watch(self, batch_id: str, watch: _Watch) -> None:
        """Gives each ticket of a batch its result, while any waits."""
        try:
            with self._store.notifications.of_async(keys.changed(batch_id), keys.batch(batch_id)) as notified:
                watch.notified = notified
                # Not only until it is cancelled: a client of Redis that just connects or closes may pass over that.
                while self._watches.get(batch_id) is watch:
                    await notified.wait()
                    watch.has_new = False
                    await self._tell(batch_id, watch, notified.state)
        except Exception as error:  # noqa: BLE001 - a defect must not leave the tickets waiting
            self._fail(watch, list(watch.waiting), error)
        finally:
            if self._watches.get(batch_id) is watch:
                del self._watches[batch_id]
            for future in _futures(watch, list(watch.waiting)):
                future.cancel()

    async def _tell(self, batch_id: str, watch: _Watch, state: str) -> None:
        tickets = list(watch.waiting)
        try:
            statuses = await self.statuses(batch_id, tickets)
        except StoreUnavailable as error:
            if not state:
                # Redis has been out of reach for long. In any other state, more notifications follow.
                self._fail(watch, tickets, error)
            return
        except LowtideError as error:
            self._fail(watch, tickets, error)
            return
        for ticket, status in zip(tickets, statuses, strict=True):
            for future in _futures(watch, [ticket]):
                if isinstance(status, LowtideError):
                    future.set_exception(status)
                elif status.result is not None:
                    future.set_result(status.result)

    @staticmethod
    def _fail(watch: _Watch, tickets: Sequence[TicketId], error: Exception) -> None:
        for future in _futures(watch, tickets):
            future.set_exception(error)


def _futures(watch: _Watch, tickets: Sequence[TicketId]) -> list[asyncio.Future[Result]]:
    """The futures of tickets that still wait."""
    futures = [future for ticket in tickets for future in watch.waiting.get(ticket, [])]
    return [future for future in futures if not future.done()]
