"""`AsyncBatchQueue`: the same queue for code that must not block its event loop.

Calls about batches run in a thread, so there is no second implementation of them. Requests from an async iterable are
passed to the thread that submits them, and `wait` needs no thread while it waits. Singles are added, and tickets
awaited, by an asyncio client of Redis: there may be thousands of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import BinaryIO, Self, Unpack
from weakref import WeakKeyDictionary

from lowtide.async_tickets import AsyncTicket, Tickets, opened
from lowtide.batch import Batch, final_status
from lowtide.errors import IdempotencyConflict, LowtideError, QueueFull, WaitTimeout
from lowtide.estimates import Estimate
from lowtide.feed import fed
from lowtide.intake import BatchSubmission, RequestLike, RequestsLike
from lowtide.models import BatchPage, BatchStatus, Result
from lowtide.options import BatchOptions, check_names
from lowtide.queue import BatchQueue
from lowtide.settings import Settings
from lowtide.single_options import Intended, SingleOptions
from lowtide.singles import add_span, check_conflict, chunks, new_singles, surplus
from lowtide.states import BatchState
from lowtide.store import Added, AsyncNotified, NewSingle

_CHUNK = 500


class AsyncBatchQueue:
    """`BatchQueue` with `await`: submits batches and finds them again.

    - `settings`: None reads them from `LOWTIDE_*` variables and `.env`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._queue = BatchQueue(settings)
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncGenerator[Tickets, None]] = WeakKeyDictionary()
        self._tickets_of: WeakKeyDictionary[asyncio.AbstractEventLoop, Tickets] = WeakKeyDictionary()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections that tickets need in this event loop. A later call opens them again.

        A task that still waits for a ticket gets `StoreUnavailable`; its request continues.

        `asyncio.run` closes them at its end, too.
        """
        # They stay those of the loop: a ticket of before may be awaited again, and the next close must find it.
        if (tickets := self._tickets_of.get(asyncio.get_running_loop())) is not None:
            await tickets.close()

    async def _tickets(self) -> Tickets:
        loop = asyncio.get_running_loop()
        if (known := self._tickets_of.get(loop)) is not None:
            return known
        lifetime = opened(*self._queue.parts())
        tickets = self._tickets_of[loop] = await anext(lifetime)
        self._loops[loop] = lifetime
        return tickets

    async def add(
        self, request: RequestLike, *, model: str, key: str | None = None, **options: Unpack[SingleOptions]
    ) -> AsyncTicket:
        """Adds one request; returns its ticket as soon as it is recorded: see `BatchQueue.add`.

        If the call is cancelled, the request may be recorded, and asked: add it again under the same `key`.

        Example::

            ticket = await queue.add({"contents": "Describe a blue mug."}, model="gemini-3.5-flash")
            result = await ticket
        """
        wanted = await self._wanted(model, options)
        with add_span(wanted):
            [ticket] = await self._added(wanted, new_singles(self._queue.settings, wanted, [request], key=key))
        return ticket

    async def add_many(
        self, requests: Iterable[RequestLike], *, model: str, **options: Unpack[SingleOptions]
    ) -> list[AsyncTicket]:
        """Adds many requests, each with a ticket of its own: see `BatchQueue.add_many`. A thread reads `requests`."""
        wanted = await self._wanted(model, options)
        with add_span(wanted):
            singles = await asyncio.to_thread(new_singles, self._queue.settings, wanted, requests)
            return await self._added(wanted, singles)

    async def ticket(self, ticket_id: str) -> AsyncTicket:
        """Returns the ticket of this id, as `AsyncTicket.id` or `Ticket.id` gave it. Raises `TicketNotFound`."""
        ticket = AsyncTicket(ticket_id, await self._tickets())
        await ticket.status()
        return ticket

    async def _wanted(self, model: str, given: SingleOptions) -> Intended:
        wanted = self._queue.intended(model, given)
        if not self._queue.is_checked(wanted):
            await asyncio.to_thread(self._queue.check_lane, wanted)
        return wanted

    async def _added(self, wanted: Intended, singles: Sequence[NewSingle]) -> list[AsyncTicket]:
        tickets = await self._tickets()
        found: list[AsyncTicket] = []
        refused: LowtideError | None = None
        for some in chunks(singles):
            for single, added in zip(some, await self._recorded(tickets, wanted, some), strict=True):
                try:
                    check_conflict(single, added)
                except IdempotencyConflict as error:
                    refused = refused or error
                found.append(AsyncTicket(added.ticket, tickets))
        if refused is not None:
            raise refused
        return found

    async def _recorded(self, tickets: Tickets, wanted: Intended, singles: Sequence[NewSingle]) -> list[Added]:
        large = [single for single in singles if single.file]
        if large:
            await asyncio.to_thread(self._queue.write_files, large)
        try:
            added = await tickets.recorded(wanted, singles)
        except QueueFull:
            await asyncio.to_thread(self._queue.remove_files, large)
            raise
        if large:
            await asyncio.to_thread(self._queue.remove_files, surplus(singles, added))
        return added

    async def submit(
        self,
        requests: AsyncIterable[RequestLike]
        | Iterable[RequestLike]
        | Sequence[str]
        | str
        | os.PathLike[str]
        | BinaryIO,
        *,
        model: str,
        **options: Unpack[BatchOptions],
    ) -> AsyncBatch:
        """Submits a batch: see `BatchQueue.submit` for requests, options and errors.

        `requests` may also be an async iterable. The task that calls this iterates it, and closes it.

        If the call is cancelled, its thread continues until it can stop. While an async iterable has not ended, the
        requests so far are removed and nothing is submitted. In any other case the batch may be recorded, and run.

        Example::

            queue = AsyncBatchQueue()
            batch = await queue.submit(requests(), model="gemini-3.5-flash", priority=10)
            status = await batch.wait(timeout=3600)
        """
        check_names(options)
        submit = partial(self._queue.submit, model=model, **options)
        if isinstance(requests, AsyncIterable):
            return AsyncBatch(await fed(submit, requests))
        return AsyncBatch(await asyncio.to_thread(submit, requests))

    async def submit_many(self, batches: Iterable[BatchSubmission]) -> list[AsyncBatch]:
        """Submits many small batches in one call: see `BatchQueue.submit_many` for order and errors.

        A thread reads `batches` and their requests, which are no async iterables. If the call is cancelled, the thread
        continues, and the batches may be recorded, and run.
        """
        return [AsyncBatch(batch) for batch in await asyncio.to_thread(self._queue.submit_many, batches)]

    async def estimate(self, requests: RequestsLike, *, model: str, **options: Unpack[BatchOptions]) -> Estimate:
        """Returns what a batch would be and would cost; nothing is stored or sent. See `lowtide.estimates`."""
        return await asyncio.to_thread(partial(self._queue.estimate, requests, model=model, **options))

    async def get(self, batch_id: str) -> AsyncBatch:
        """Returns the batch of this id: see `BatchQueue.get`. Raises `BatchNotFound`."""
        return AsyncBatch(await asyncio.to_thread(self._queue.get, batch_id))

    async def list(
        self,
        *,
        state: BatchState | str | None = None,
        labels: Mapping[str, str] | None = None,
        bundle: str | None = None,
        page_size: int = 50,
        page_token: str | None = None,
    ) -> BatchPage:
        """Returns one page of batches, newest first: see `BatchQueue.list` for the parameters."""
        return await asyncio.to_thread(
            self._queue.list, state=state, labels=labels, bundle=bundle, page_size=page_size, page_token=page_token
        )


class AsyncBatch:
    """`Batch` with `await` and `async for`. It holds only the id: each call reads the present state."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.id = batch.id

    def __repr__(self) -> str:
        return f"AsyncBatch({self.id!r})"

    async def status(self, *, max_jobs: int | None = None) -> BatchStatus:
        """Returns the counts, state, jobs and tokens now: see `Batch.status`. Raises `BatchNotFound`."""
        return await asyncio.to_thread(self._batch.status, max_jobs=max_jobs)

    async def summary(self) -> BatchStatus:
        """Returns the status without the jobs, in one quick read: see `Batch.summary`. Raises `BatchNotFound`."""
        return await asyncio.to_thread(self._batch.summary)

    async def wait(self, timeout: float | None = None) -> BatchStatus:  # noqa: ASYNC109 - the same signature as Batch.wait
        """Waits until the batch is finished and returns its final status: see `Batch.wait`. Raises `WaitTimeout`."""
        try:
            async with asyncio.timeout(timeout):
                return await self._ended()
        except TimeoutError:
            raise WaitTimeout(f"batch {self.id} did not finish within {timeout:g} s") from None

    async def _ended(self) -> BatchStatus:
        if (await self.summary()).finished:
            return await self.status()
        with self.notifications() as notified:
            while True:
                await notified.wait()
                if (status := await asyncio.to_thread(final_status, self._batch, notified.state)) is not None:
                    return status

    def notifications(self) -> AbstractContextManager[AsyncNotified]:
        """Returns a context manager that subscribes a task to the changes of the batch: see `AsyncNotified`."""
        return self._batch.async_notifications()

    async def results(self) -> AsyncIterator[Result]:
        """Yields the stored results, for `async for`: see `Batch.results` for order and errors."""
        iterator = self._batch.results()
        while chunk := await asyncio.to_thread(_take, iterator):
            for result in chunk:
                yield result

    async def result(self, key: str) -> Result:
        """Returns the stored result of one request: see `Batch.result` for the errors."""
        return await asyncio.to_thread(self._batch.result, key)

    async def cancel(self) -> None:
        """Asks the batch to stop and returns at once: see `Batch.cancel`."""
        await asyncio.to_thread(self._batch.cancel)

    async def set_max_cost(self, max_cost: Decimal | float | str) -> None:
        """Changes the most that the batch may cost, in US dollars: see `Batch.set_max_cost`. Raises `InvalidBatch`."""
        await asyncio.to_thread(self._batch.set_max_cost, max_cost)

    async def delete(self) -> None:
        """Removes a finished batch: see `Batch.delete`. Raises `BatchNotFinished`."""
        await asyncio.to_thread(self._batch.delete)


def _take(iterator: Iterator[Result]) -> list[Result]:
    return list(islice(iterator, _CHUNK))
