"""Requests that come from an async iterable: taken in by one thread, whatever becomes of either side."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from contextvars import ContextVar

import pytest
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import AsyncBatchQueue, InvalidRequest, Request

MODEL = "gemini-3.5-flash"


def request(number: int) -> Request:
    return Request(key=f"k{number}", contents=f"What is {number} times two?")


class Source:
    """Requests without end, or up to one; knows whether it was closed, and by which task."""

    def __init__(self, count: int | None = None, *, fails: Exception | None = None, bad: int | None = None) -> None:
        self.count, self.fails, self.bad = count, fails, bad
        self.given = 0
        self.closed = False
        self.tasks: set[object] = set()

    async def __call__(self) -> AsyncIterator[Request]:
        try:
            while self.count is None or self.given < self.count:
                self.tasks.add(asyncio.current_task())
                # Needs a thread of the loop's own, as a source may.
                await asyncio.to_thread(int)
                yield Request(key="bad", contents="") if self.given == self.bad else request(self.given)
                self.given += 1
            if self.fails:
                raise self.fails
        finally:
            self.tasks.add(asyncio.current_task())
            self.closed = True


def no_thread_is_left() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("lowtide-submit")]


@pytest.fixture
def no_file_is_left(stack: Stack) -> Callable[[], bool]:
    """Whether there is no folder without a batch but those that were there before."""

    def orphans() -> set[str]:
        # Before the records: the worker may take in a batch meanwhile.
        folders = {path.name for path in (stack.directory / "spool" / "batches").glob("*")}
        recorded = {key.decode().rpartition(":")[2] for key in stack.redis.scan_iter("lowtide:batch:*", count=1000)}
        return folders - recorded

    before = orphans()
    return lambda: orphans() <= before


def test_many_sources_that_need_threads_themselves_do_not_wait_for_each_other(stack: Stack) -> None:
    async def story() -> None:
        queue = AsyncBatchQueue(stack.settings())
        async with asyncio.timeout(60):
            batches = await asyncio.gather(*(queue.submit(Source(3)(), model=MODEL) for _ in range(12)))
            assert (await batches[-1].wait(60)).succeeded == 3
        assert len({batch.id for batch in batches}) == 12

    asyncio.run(story())


def test_the_source_is_iterated_and_closed_by_the_task_that_submits(stack: Stack) -> None:
    source = Source(1200)

    async def story() -> None:
        batch = await AsyncBatchQueue(stack.settings()).submit(source(), model=MODEL)
        assert (await batch.summary()).total == 1200
        assert source.tasks == {asyncio.current_task()}

    asyncio.run(story())
    assert source.closed


def test_what_the_source_raises_comes_out_as_it_is(stack: Stack, no_file_is_left: Callable[[], bool]) -> None:
    boom = FileNotFoundError("rows.db")
    source = Source(7, fails=boom)

    async def story() -> None:
        with pytest.raises(FileNotFoundError) as caught:
            await AsyncBatchQueue(stack.settings()).submit(source(), model=MODEL)
        assert caught.value is boom
        assert no_file_is_left()

    asyncio.run(story())


def test_a_bad_request_ends_a_source_that_has_no_end(stack: Stack, no_file_is_left: Callable[[], bool]) -> None:
    source = Source(bad=5)

    async def story() -> None:
        async with asyncio.timeout(60):
            with pytest.raises(InvalidRequest, match="request 6"):
                await AsyncBatchQueue(stack.settings()).submit(source(), model=MODEL)

    asyncio.run(story())
    assert source.closed
    assert no_file_is_left()


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.01, 0.05])
def test_a_submit_that_runs_out_of_time_leaves_nothing(
    stack: Stack, no_file_is_left: Callable[[], bool], seconds: float
) -> None:
    source = Source()

    async def story() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await AsyncBatchQueue(stack.settings()).submit(source(), model=MODEL)

    before = stack.redis.zcard("lowtide:batches")
    asyncio.run(story())

    assert source.closed or not source.tasks
    wait_until(no_thread_is_left, what="the thread has come to its end")
    assert no_file_is_left()
    assert stack.redis.zcard("lowtide:batches") == before


# The forsaken queue is never closed: Python may find its socket before the client that would close it.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_loop_that_is_closed_over_a_submit_does_not_keep_its_thread(
    stack: Stack, no_file_is_left: Callable[[], bool]
) -> None:
    loop = asyncio.new_event_loop()
    source = Source()
    task = loop.create_task(AsyncBatchQueue(stack.settings()).submit(source(), model=MODEL))

    async def some_are_taken() -> None:
        await asyncio.to_thread(wait_until, lambda: source.given > 20)

    loop.run_until_complete(some_are_taken())
    # Nobody cancels the task, which Python says aloud when it goes.
    loop.set_exception_handler(lambda *_: None)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()

    wait_until(no_thread_is_left, what="the thread has given up")
    assert no_file_is_left()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    del task
    with suppress(RuntimeError):
        gc.collect()


FORSAKEN = """
import asyncio, sys
from pydantic import SecretStr
from lowtide import AsyncBatchQueue, Settings
settings = Settings(_env_file=None, redis_url=SecretStr(sys.argv[1]), spool_url=sys.argv[2])
async def source():
    reached.set()
    await asyncio.Event().wait()
    yield
async def story():
    global task
    task = asyncio.create_task(AsyncBatchQueue(settings).submit(source(), model="gemini-3.5-flash"))
    await reached.wait()
reached = asyncio.Event()
loop = asyncio.new_event_loop()
loop.run_until_complete(story())
print("the end")
"""


def test_a_process_ends_whose_loop_is_neither_run_nor_closed_any_more(
    stack: Stack, no_file_is_left: Callable[[], bool]
) -> None:
    arguments = (stack.redis_server.url, str(stack.directory / "spool"))

    done = subprocess.run(
        [sys.executable, "-c", FORSAKEN, *arguments], capture_output=True, text=True, timeout=180, check=False
    )

    assert (done.returncode, done.stdout) == (0, "the end\n")
    assert no_file_is_left()


def test_the_requests_see_the_context_of_the_task(stack: Stack) -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    async def source() -> AsyncIterator[Request]:
        yield Request(key=tenant.get(), contents="hello")

    async def story() -> list[str]:
        tenant.set("somebody")
        batch = await AsyncBatchQueue(stack.settings()).submit(source(), model=MODEL)
        await batch.wait(60)
        return [result.key async for result in batch.results()]

    assert asyncio.run(story()) == ["somebody"]
