"""Passes the items of an async iterable to a function that takes a plain iterable, in a thread of its own."""

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
"""Most items that are passed at once."""
_CHECK_SECONDS = 1.0
"""Seconds between two checks, by a thread that waits for items, that its event loop still exists."""


class Abandoned(Exception):
    """Raised in the thread when no task waits for its result any more."""


async def fed(function: Callable[[Iterable[T]], R], source: AsyncIterable[T]) -> R:
    """Calls a function in a thread with the items of an async iterable; returns its result.

    The calling task itself iterates the source, and closes it, because a source may need to run in that task. If the
    source raises, the function gets `Abandoned` from its iterable, and the error is raised when the function has ended.
    If the task is cancelled, the function gets `Abandoned` too, and the task does not wait for it.
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
    """Calls a function in a new thread, for which the process waits before it ends.

    It is not one of the loop's own threads: a source may need one of those itself, and they might all wait for sources.
    """
    future: Future[R] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - the task that waits gets it
            future.set_exception(error)

    future.set_running_or_notify_cancel()
    threading.Thread(target=run, name="lowtide-submit").start()
    return future


class _Feed(Generic[T]):
    """The thread's iterable. It asks for items, and waits until the event loop gives it some, or the end."""

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
                items = self._given.get(timeout=_CHECK_SECONDS)
            except Empty:
                # Nothing reports that the loop was closed with its task not cancelled, or that the process ends.
                if self._loop.is_closed() or not threading.main_thread().is_alive():
                    raise Abandoned("the event loop is closed") from None
                continue
            if items is None:
                raise Abandoned("not all requests were read from their source")
            return items

    async def fill(self, source: AsyncIterable[T]) -> None:
        """Passes on the items of the source until the thread has ended. A thread that waits gets a partial chunk."""
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
        """Ends the iterable: the thread gets `Abandoned` at its next item."""
        self._given.put(None)

    def no_more_wanted(self, work: asyncio.Future[Any]) -> None:
        """Notes that the thread has ended, perhaps before the source."""
        self._over = True
        self._wanted.set()
        if not work.cancelled():
            work.exception()  # The source's own error may be raised instead: asyncio must not log this one.
