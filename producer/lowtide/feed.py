"""The way from an async iterable to a function that takes a plain one, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_CHUNK = 500
"""Most items that are handed over at once."""
_LOOK_SECONDS = 1.0
"""How often a thread that waits for items looks whether there is anybody left to give them."""


class Abandoned(Exception):
    """Raised in the thread where nobody waits any more for what it does."""


async def fed(function: Callable[[Iterable[T]], R], source: AsyncIterable[T]) -> R:
    """Calls a function in a thread with what an async iterable yields; returns what it returns.

    The task that calls this iterates the source, so that it may do what belongs to a task, and closes it. What the
    source raises comes out after the function has ended; the function itself gets `Abandoned` from its iterable. Where
    the task is cancelled it gets that too, and nobody waits for it.
    """
    feed: _Feed[T] = _Feed()
    context = contextvars.copy_context()
    work = asyncio.wrap_future(_in_thread(lambda: context.run(function, feed)))
    work.add_done_callback(feed.no_more_wanted)
    try:
        await feed.fill(source)
    except Exception:
        feed.abandon()
        await asyncio.wait([work])
        raise
    except BaseException:
        feed.abandon()
        work.cancel()
        raise
    return await work


def _in_thread(function: Callable[[], R]) -> Future[R]:
    """Calls a function in a new thread, which the end of the process waits for.

    The loop's own threads will not do: a source that needs one itself might find them all waiting for sources.
    """
    future: Future[R] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it goes to whoever waits
            future.set_exception(error)

    future.set_running_or_notify_cancel()
    threading.Thread(target=run, name="lowtide-submit").start()
    return future


class _Feed(Generic[T]):
    """An iterable for the thread. It asks for items, and waits until the loop's side gives it some, or an end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Event()
        self._over = False
        self._given: SimpleQueue[list[T] | None] = SimpleQueue()

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                self._loop.call_soon_threadsafe(self._wanted.set)
            except RuntimeError as closed:
                raise Abandoned("the event loop is closed") from closed
            items = self._next()
            if not items:
                return
            yield from items

    def _next(self) -> list[T]:
        while True:
            try:
                items = self._given.get(timeout=_LOOK_SECONDS)
            except Empty:
                # Whoever closes a loop over a task that was not cancelled, or ends the process, says nothing here.
                if self._loop.is_closed() or not threading.main_thread().is_alive():
                    raise Abandoned("the event loop is closed") from None
                continue
            if items is None:
                raise Abandoned("the requests were not all taken from their source")
            return items

    async def fill(self, source: AsyncIterable[T]) -> None:
        """Hands over all that the source yields, as long as it is wanted; a thread that waits gets what there is."""
        async with AsyncExitStack() as stack:
            items = aiter(source)
            if hasattr(items, "aclose"):
                stack.push_async_callback(items.aclose)
            chunk: list[T] = []
            async for item in items:
                chunk.append(item)
                if len(chunk) == _CHUNK or self._wanted.is_set():
                    await self._give(chunk)
                    chunk = []
                if self._over:
                    return
        if chunk:
            await self._give(chunk)
        await self._give([])

    async def _give(self, items: list[T]) -> None:
        await self._wanted.wait()
        if not self._over:
            self._wanted.clear()
            self._given.put(items)

    def abandon(self) -> None:
        """Lets the thread go, which gets `Abandoned` at its next item."""
        self._given.put(None)

    def no_more_wanted(self, work: asyncio.Future[Any]) -> None:
        """Notes that the thread has ended, be it before the source."""
        self._over = True
        self._wanted.set()
        if not work.cancelled():
            work.exception()  # The source's own error may come out in its place: asyncio need not log this one.
