"""Waiting for a batch: Redis notifies of its changes, and a notification that is lost delays no waiter for long."""

from __future__ import annotations

import asyncio
import gc
import itertools
import linecache
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack
from tests.tap import Tap
from tests.waiting import wait_until

from lowtide import AsyncBatch, Batch, BatchNotFound, BatchStatus, StoreUnavailable
from lowtide.protocol import keys
from lowtide.store import notifications

NEVER = (3600.0, 3600.0)
Waits = Callable[[Batch], BatchStatus]


def blocking(batch: Batch) -> BatchStatus:
    return batch.wait(timeout=180)


def awaiting(batch: Batch) -> BatchStatus:
    return asyncio.run(AsyncBatch(batch).wait(timeout=180))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("notifications")) as stack:
        yield stack


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def submitted(stack: Stack) -> Batch:
    """A batch that no worker works on."""
    return stack.queue().submit(blurbs(1), model=MODEL)


def subscribers(stack: Stack, batch: Batch) -> int:
    [(_, count)] = stack.redis.pubsub_numsub(keys.changed(batch.id))
    return int(count)


def begun(stack: Stack, pool: ThreadPoolExecutor, wait: Waits, batch: Batch) -> Future[BatchStatus]:
    """A wait that has read the state, and from now on depends on notifications."""
    with Tap(stack.redis_server, (seen := list[str]()).append):
        waits = pool.submit(wait, batch)
        read = f'"1" "{keys.batch(batch.id)}"'
        wait_until(lambda: any("EVALSHA" in line and read in line for line in seen), what="the state is read")
    return waits


def end(stack: Stack, batch: Batch, *, published: bool = True) -> None:
    """Ends a batch as a script of a worker does."""
    stack.redis.hset(keys.batch(batch.id), mapping={"state": "completed", "finished": "1"})
    if published:
        stack.redis.publish(keys.changed(batch.id), "completed")


@pytest.mark.parametrize("wait", [blocking, awaiting])
def test_a_notification_ends_the_wait(
    stack: Stack, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, wait: Waits
) -> None:
    monkeypatch.setattr(notifications, "_ROUND_SECONDS", NEVER)
    batch = submitted(stack)
    waits = begun(stack, pool, wait, batch)

    end(stack, batch)

    assert waits.result(30).finished


@pytest.mark.parametrize("wait", [blocking, awaiting])
def test_a_lost_notification_only_delays_the_end(
    stack: Stack, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, wait: Waits
) -> None:
    monkeypatch.setattr(notifications, "_ROUND_SECONDS", (0.1, 0.2))
    batch = submitted(stack)
    waits = begun(stack, pool, wait, batch)

    end(stack, batch, published=False)

    assert waits.result(30).finished


def test_a_batch_that_ends_before_the_subscription_is_not_missed(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_ROUND_SECONDS", NEVER)
    batch = submitted(stack)
    running = batch.summary()
    end(stack, batch)
    # As if it had ended between the first read and the subscription.
    monkeypatch.setattr(batch, "summary", lambda: running)

    assert blocking(batch).finished


def test_a_wait_survives_that_redis_ends_its_connections(
    stack: Stack, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_ROUND_SECONDS", NEVER)
    batch = submitted(stack)
    waits = begun(stack, pool, blocking, batch)

    # What is published while the connection is away is lost.
    with Tap(stack.redis_server, lambda _: None):
        stack.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        end(stack, batch)

    assert waits.result(30).finished


def test_a_wait_survives_a_restart_of_redis(
    stack: Stack, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_ROUND_SECONDS", NEVER)
    batch = submitted(stack)
    waits = [begun(stack, pool, wait, batch) for wait in (blocking, awaiting)]

    stack.redis_server.stop()
    stack.redis_server.start()
    wait_until(lambda: subscribers(stack, batch) == 1, what="they have subscribed again")
    end(stack, batch)

    assert [each.result(30).finished for each in waits] == [True, True]


def test_an_outage_of_redis_that_lasts_ends_the_wait(
    stack: Stack, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_OUTAGE_SECONDS", 0.0)
    batch = submitted(stack)
    waits = begun(stack, pool, blocking, batch)

    stack.redis_server.stop()
    try:
        with pytest.raises(StoreUnavailable):
            waits.result(30)
    finally:
        stack.redis_server.start()


def test_a_wait_without_permission_to_subscribe_reads_the_state(
    stack: Stack, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.redis.execute_command("ACL", "SETUSER", "deaf", "reset", "on", ">pw", "~*", "+@all", "resetchannels")
    queue = stack.queue(redis_url=f"redis://deaf:pw@127.0.0.1:{stack.redis_server.port}/0")
    monkeypatch.setattr(queue, "check", lambda _: None)
    batch = queue.submit(blurbs(1), model=MODEL)
    waits = begun(stack, pool, blocking, batch)

    end(stack, batch)

    assert waits.result(30).finished


def test_a_wait_for_a_batch_that_is_deleted_ends(
    stack: Stack, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_ROUND_SECONDS", NEVER)
    batch = submitted(stack)
    waits = begun(stack, pool, blocking, batch)

    stack.redis.delete(keys.batch(batch.id))
    stack.redis.publish(keys.changed(batch.id), "")

    with pytest.raises(BatchNotFound):
        waits.result(30)


def test_waits_of_one_queue_share_a_connection(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_ROUND_SECONDS", NEVER)
    count, queue = 100, stack.queue()
    batches = queue.submit_many({"requests": blurbs(1), "model": MODEL} for _ in range(count))

    async def all_ended() -> list[BatchStatus]:
        waits = [asyncio.ensure_future(AsyncBatch(batch).wait(60)) for batch in batches]
        await asyncio.to_thread(
            wait_until, lambda: all(subscribers(stack, batch) for batch in batches), what="all have subscribed"
        )
        listening = [client for client in stack.redis.client_list() if int(client["sub"]) > 1]
        assert [int(client["sub"]) for client in listening] == [count + 1]
        for batch in batches:
            end(stack, batch)
        return await asyncio.gather(*waits)

    assert all(status.finished for status in asyncio.run(all_ended()))


def test_a_child_process_waits_too(stack: Stack, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_ROUND_SECONDS", NEVER)
    batch = submitted(stack)
    waits = begun(stack, pool, blocking, batch)
    store = batch._store.notifications
    assert subscribers(stack, batch) == 1

    child = os.fork()
    if not child:
        os._exit(0 if blocking(batch).finished and store._pid == os.getpid() else 1)
    wait_until(lambda: subscribers(stack, batch) == 2, what="the child has subscribed")
    end(stack, batch)

    assert os.waitpid(child, 0)[1] == 0
    assert waits.result(30).finished


def test_every_change_of_a_batch_is_published(stack: Stack) -> None:
    stack.empty_redis()  # the worker would run the batches of all other tests
    states: list[str] = []
    with stack.redis.pubsub() as subscription:
        subscription.psubscribe(keys.changed("*"))
        worker = stack.worker("-P", "threads", "-c", "4")
        batch = stack.queue().submit(blurbs(3), model=MODEL)
        batch.wait(timeout=180)
        batch.delete()

        def deleted() -> bool:
            while (message := subscription.get_message()) is not None:
                if message["channel"] == keys.changed(batch.id).encode():
                    states.append(message["data"].decode())
            return "" in states

        wait_until(deleted, what="the batch is deleted")
        worker.stop()

    # Twice while it runs: as it is cut into jobs, and as its results are counted.
    assert states == ["running", "running", "completed", "deleting", "deleting", ""]


def test_a_thread_that_cannot_be_started_costs_the_later_waits_nothing(
    stack: Stack, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = submitted(stack)

    def at_its_limit(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", at_its_limit)
        with pytest.raises(RuntimeError):
            batch.wait(timeout=180)

    waits = begun(stack, pool, blocking, batch)
    end(stack, batch)
    assert waits.result(60).finished


@contextmanager
def ctrl_c(lines: int) -> Iterator[None]:
    """Raises `KeyboardInterrupt` when so many lines of the functions that begin a wait have run in the block."""
    left = lines

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_name not in {"_joined", "_started"}:
            return None
        # No signal is handled between the end of a `with` block and its exit, nor as a `try` block begins.
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
        left -= event == "line" and not text.startswith(("with ", "try:"))
        if left < 0:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def test_ctrl_c_as_a_wait_begins_leaves_nothing_open_and_the_next_wait_works(
    stack: Stack, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_IDLE_SECONDS", 0.0)
    batch = submitted(stack)
    store = batch._store.notifications
    others = listening()
    for lines in itertools.count():
        try:
            with ctrl_c(lines), batch.notifications():
                sys.settrace(None)
                break
        except KeyboardInterrupt:
            assert not store._waiters
            wait_until(lambda: store._bell is None, what="no thread listens")
    assert lines > 5

    waits = begun(stack, pool, blocking, batch)
    end(stack, batch)
    assert waits.result(60).finished
    wait_until(lambda: listening() <= others, what="no thread listens")
    gc.collect()  # warnings are errors here


def listening() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "lowtide-notifications"}
