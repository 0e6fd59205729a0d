"""`AsyncBatchQueue`: the same queue for code that must not block its event loop.

Each call runs in a thread, so there is no second implementation and no async Redis client. Requests from an async
iterable are passed to the thread that submits them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import BinaryIO, Unpack

from lowtide.batch import Batch
from lowtide.errors import WaitTimeout
from lowtide.estimates import Estimate
from lowtide.feed import fed
from lowtide.intake import BatchSubmission, RequestLike, RequestsLike
from lowtide.models import BatchPage, BatchStatus, Result
from lowtide.options import BatchOptions, check_names
from lowtide.queue import BatchQueue
from lowtide.settings import Settings
from lowtide.states import BatchState

_CHUNK = 500


class AsyncBatchQueue:
    """`BatchQueue` with `await`: submits batches and finds them again.

    - `settings`: None reads them from `LOWTIDE_*` variables and `.env`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._queue = BatchQueue(settings)

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
        page_size: int = 50,
        page_token: str | None = None,
    ) -> BatchPage:
        """Returns one page of batches, newest first: see `BatchQueue.list` for the parameters."""
        return await asyncio.to_thread(
            self._queue.list, state=state, labels=labels, page_size=page_size, page_token=page_token
        )


class AsyncBatch:
    """`Batch` with `await` and `async for`. It holds only the id: each call reads the present state."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.id = batch.id

    def __repr__(self) -> str:
        return f"AsyncBatch({self.id!r})"

    async def status(self) -> BatchStatus:
        """Returns the counts, state, jobs and tokens now: see `Batch.status`. Raises `BatchNotFound`."""
        return await asyncio.to_thread(self._batch.status)

    async def summary(self) -> BatchStatus:
        """Returns the status without the jobs, in one quick read: see `Batch.summary`. Raises `BatchNotFound`."""
        return await asyncio.to_thread(self._batch.summary)

    async def wait(self, timeout: float | None = None, *, poll_seconds: float = 0.5) -> BatchStatus:  # noqa: ASYNC109 - the same signature as Batch.wait
        """Waits until the batch is finished and returns its final status: see `Batch.wait`. Raises `WaitTimeout`."""
        try:
            async with asyncio.timeout(timeout):
                while not (await self.summary()).finished:  # noqa: ASYNC110 - the event is in Redis
                    await asyncio.sleep(poll_seconds)
        except TimeoutError:
            raise WaitTimeout(f"batch {self.id} did not finish within {timeout:g} s") from None
        return await self.status()

    async def results(self) -> AsyncIterator[Result]:
        """Yields the stored results, for `async for`: see `Batch.results` for order and errors."""
        iterator = self._batch.results()
        while chunk := await asyncio.to_thread(_take, iterator):
            for result in chunk:
                yield result

    async def cancel(self) -> None:
        """Asks the batch to stop and returns at once: see `Batch.cancel`."""
        await asyncio.to_thread(self._batch.cancel)

    async def delete(self) -> None:
        """Removes a finished batch: see `Batch.delete`. Raises `BatchNotFinished`."""
        await asyncio.to_thread(self._batch.delete)


def _take(iterator: Iterator[Result]) -> list[Result]:
    return list(islice(iterator, _CHUNK))
