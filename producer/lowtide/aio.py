"""`AsyncBatchQueue`: the same queue for code that must not block its event loop.

Every call runs in a thread, so it needs no second implementation and no async Redis client. Requests that come from an
async iterable are fed to the thread that submits them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

from lowtide.addresses import NamedTask
from lowtide.batch import Batch
from lowtide.errors import WaitTimeout
from lowtide.feed import fed
from lowtide.models import BatchPage, BatchStatus, Result
from lowtide.queue import BatchQueue, RequestLike
from lowtide.settings import Settings
from lowtide.states import BatchState, Kind, Mode, ProviderName, Verdict

_CHUNK = 500


class AsyncBatchQueue:
    """`BatchQueue` with `await`."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._queue = BatchQueue(settings)

    async def submit(
        self,
        requests: AsyncIterable[RequestLike] | Iterable[RequestLike] | Sequence[str] | str | os.PathLike[str],
        *,
        model: str,
        on_result: str | NamedTask | None = None,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
        mode: Mode | str | None = None,
        max_attempts: int | None = None,
        priority: int = 0,
        outcomes: Mapping[str, Verdict | str] | None = None,
        provider: ProviderName | str | None = None,
        kind: Kind | str = Kind.GENERATION,
        destination: str | None = None,
        key_column: str = "key",
    ) -> AsyncBatch:
        """As `BatchQueue.submit`; `requests` may also be an async iterable, which the calling task iterates and closes.

        Where the call is cancelled, a thread goes on to the nearest end: what came so far of an async iterable is
        removed, unless it was all of it. Then, and of other requests, the batch may be recorded all the same, and runs.
        """
        submit = partial(
            self._queue.submit, model=model, on_result=on_result, labels=labels,
            idempotency_key=idempotency_key, mode=mode, max_attempts=max_attempts, priority=priority,
            outcomes=outcomes, provider=provider, kind=kind, destination=destination, key_column=key_column,
        )  # fmt: skip
        if isinstance(requests, AsyncIterable):
            return AsyncBatch(await fed(submit, requests))
        return AsyncBatch(await asyncio.to_thread(submit, requests))

    async def get(self, batch_id: str) -> AsyncBatch:
        """As `BatchQueue.get`."""
        return AsyncBatch(await asyncio.to_thread(self._queue.get, batch_id))

    async def list(
        self, *, state: BatchState | str | None = None, page_size: int = 50, page_token: str | None = None
    ) -> BatchPage:
        """As `BatchQueue.list`."""
        return await asyncio.to_thread(self._queue.list, state=state, page_size=page_size, page_token=page_token)


class AsyncBatch:
    """`Batch` with `await` and `async for`."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.id = batch.id

    def __repr__(self) -> str:
        return f"AsyncBatch({self.id!r})"

    async def status(self) -> BatchStatus:
        """As `Batch.status`."""
        return await asyncio.to_thread(self._batch.status)

    async def summary(self) -> BatchStatus:
        """As `Batch.summary`."""
        return await asyncio.to_thread(self._batch.summary)

    async def wait(self, timeout: float | None = None, *, poll_seconds: float = 0.5) -> BatchStatus:  # noqa: ASYNC109 - the same signature as Batch.wait
        """As `Batch.wait`."""
        try:
            async with asyncio.timeout(timeout):
                while not (await self.summary()).finished:  # noqa: ASYNC110 - the event is in Redis
                    await asyncio.sleep(poll_seconds)
        except TimeoutError:
            raise WaitTimeout(f"batch {self.id} did not finish within {timeout:g} s") from None
        return await self.status()

    async def results(self) -> AsyncIterator[Result]:
        """As `Batch.results`, with `async for`."""
        iterator = self._batch.results()
        while chunk := await asyncio.to_thread(_take, iterator):
            for result in chunk:
                yield result

    async def cancel(self) -> None:
        """As `Batch.cancel`."""
        await asyncio.to_thread(self._batch.cancel)

    async def delete(self) -> None:
        """As `Batch.delete`."""
        await asyncio.to_thread(self._batch.delete)


def _take(iterator: Iterator[Result]) -> list[Result]:
    return list(islice(iterator, _CHUNK))
