"""Tickets in an event loop: no thread waits, few connections are open, and an end of the loop leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import (
    AsyncBatchQueue,
    AsyncTicket,
    IdempotencyConflict,
    InvalidBatch,
    InvalidRequest,
    LowtideError,
    QueueFull,
    StoreUnavailable,
    TicketNotFound,
    TicketState,
    WaitTimeout,
)
from lowtide.protocol import keys

ONE = {"contents": "Describe a blue mug."}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("tickets"), LOWTIDE_LINGER_SECONDS="0") as stack:
        stack.worker()
        yield stack


def queue_of(stack: Stack, **changes: object) -> AsyncBatchQueue:
    return AsyncBatchQueue(stack.settings(**{"gather_seconds": 0.2, "linger_seconds": 0.0, **changes}))


def connections(stack: Stack) -> int:
    """How many connections to Redis this process has. It has others too: the emulator's, to the worker."""
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    to_redis = {f"socket:[{line[9]}]" for line in lines if line[2].endswith(f":{stack.redis_server.port:04X}")}
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found += entry.readlink().name in to_redis
    return found


def test_thousands_of_tickets_are_awaited_over_few_connections_and_no_thread_each(stack: Stack) -> None:
    count = 2000

    async def main() -> list[str]:
        async with queue_of(stack) as queue:
            tickets = await queue.add_many(blurbs(count), model=MODEL)
            alone = await queue.add(ONE, model=MODEL)
            before, threads = connections(stack), threading.active_count()
            waits = [asyncio.ensure_future(ticket.result()) for ticket in (*tickets, alone)]
            results = []
            for wait in asyncio.as_completed(waits):
                results.append(await wait)
                if len(results) == 1:
                    more = threading.active_count() - threads
                    opened = connections(stack) - before
            # Those of the loop, and one that notifies.
            assert opened <= 4 + 1
            assert more <= 40  # a thread that notifies, and those of asyncio that read files
            found = await asyncio.gather(*(queue.ticket(ticket.id) for ticket in tickets[:20]))
            assert [(await one).key for one in found] == [f"sku-{number}" for number in range(20)]
            return sorted(result.key for result in results if result.key != alone.id)

    assert asyncio.run(main()) == sorted(f"sku-{number}" for number in range(count))


def test_a_ticket_tells_its_state_and_two_may_await_it(stack: Stack) -> None:
    async def main() -> None:
        async with queue_of(stack) as queue:
            with stack.held_jobs():
                ticket = await queue.add(ONE, model=MODEL, key="mug", tenant="acme")
                assert (await ticket.status()).state in {TicketState.WAITING, TicketState.SENT}
                with pytest.raises(WaitTimeout, match=ticket.id):
                    await ticket.result(timeout=0.05)
                both = asyncio.gather(ticket.result(60), ticket)
                await asyncio.sleep(0)
            first, second = await both
            assert first == second
            assert (first.key, first.labels) == ("mug", {"tenant": "acme"})
            again = await queue.add(ONE, model=MODEL, key="mug", tenant="acme")
            assert again.id == ticket.id
            assert (await again.status()).result == first
            with pytest.raises(IdempotencyConflict, match=(await ticket.status()).batch_id):
                await queue.add({"contents": "Another."}, model=MODEL, key="mug", tenant="acme")

    asyncio.run(main())


def test_a_payload_that_is_large_waits_in_the_spool(stack: Stack) -> None:
    async def main() -> str | None:
        async with queue_of(stack, single_bytes=1000) as queue:
            ticket = await queue.add({"contents": "Count " + "x" * 5000}, model=MODEL)
            return (await ticket.result(60)).text

    answer = asyncio.run(main())
    assert answer is not None
    assert answer.startswith("Count " + "x" * 300)


def test_what_cannot_be_added_is_the_error_of_the_blocking_client(stack: Stack) -> None:
    async def main() -> None:
        async with queue_of(stack, max_singles_waiting=1) as queue:
            with pytest.raises(InvalidRequest, match="contents"):
                await queue.add({"contnts": "x"}, model=MODEL)
            with pytest.raises(InvalidBatch, match="tenant"):
                await queue.add(ONE, model=MODEL, tenant="")
            with pytest.raises(QueueFull):
                await queue.add_many([{"contents": f"Question {n}."} for n in range(3)], model=MODEL, block=0.1)
            for unknown in ("nonsense", "b0000000000000000000.0.0123456789abcdef"):
                with pytest.raises(TicketNotFound, match=unknown):
                    await queue.ticket(unknown)
                with pytest.raises(TicketNotFound, match=unknown):
                    await AsyncTicket(unknown, await queue._tickets())

    asyncio.run(main())


def test_a_loop_that_ends_while_tickets_wait_leaves_no_connection_and_no_warning(stack: Stack) -> None:
    queue = queue_of(stack, gather_seconds=60)
    waits: list[asyncio.Future[object]] = []

    async def main() -> None:
        # Of its own lane, whose batch stays open.
        ticket = await queue.add(ONE, model=MODEL, labels={"test": "end"})
        waits.extend(asyncio.ensure_future(ticket.result()) for _ in range(3))
        channel = keys.changed(ticket.id.partition(".")[0])
        await asyncio.to_thread(wait_until, lambda: stack.redis.pubsub_channels(channel), what="the loop is subscribed")

    # The same queue serves one loop after the other. Its blocking client keeps a connection.
    asyncio.run(main())
    before = connections(stack)
    asyncio.run(main())
    assert all(wait.cancelled() for wait in waits)
    assert len(waits) == 6
    del waits[:]
    gc.collect()  # warnings are errors here
    assert not queue._queue._store.notifications._waiters
    wait_until(lambda: connections(stack) <= before, what="the connections are closed")


def test_a_queue_that_is_closed_ends_the_waits_for_its_tickets(stack: Stack) -> None:
    async def main() -> None:
        queue = queue_of(stack, gather_seconds=60)
        ticket = await queue.add(ONE, model=MODEL, labels={"test": "closed"})
        waits = [asyncio.ensure_future(ticket.result()) for _ in range(2)]
        channel = keys.changed(ticket.id.partition(".")[0])
        await asyncio.to_thread(wait_until, lambda: stack.redis.pubsub_channels(channel), what="the loop is subscribed")
        await queue.aclose()
        assert all(wait.done() for wait in waits), "they wait no longer"
        for wait in waits:
            with pytest.raises(StoreUnavailable, match="closed while a ticket was awaited"):
                await wait
        assert (await (await queue.ticket(ticket.id)).status()).state is TicketState.WAITING, "it is open again"
        # The ticket is one of before.
        again = asyncio.ensure_future(ticket.result())
        await asyncio.to_thread(wait_until, lambda: stack.redis.pubsub_channels(channel), what="the loop is subscribed")
        await queue.aclose()
        with pytest.raises(StoreUnavailable, match="closed while a ticket was awaited"):
            await asyncio.wait_for(again, 10)

    before = connections(stack)
    asyncio.run(main())
    gc.collect()  # warnings are errors here
    wait_until(lambda: connections(stack) <= before, what="the connections are closed")


def test_a_ticket_of_a_deleted_batch_says_until_when_its_result_was_kept(stack: Stack) -> None:
    async def main() -> None:
        async with queue_of(stack) as queue:
            ticket = await queue.add(ONE, model=MODEL, key="gone", labels={"test": "deleted"})
            await ticket
            batch = await queue.get((await ticket.status()).batch_id)
            await batch.wait(60)
            await batch.delete()
            waits = [ticket.result(60), ticket.status(), queue.ticket(ticket.id)]
            errors = await asyncio.gather(*waits, return_exceptions=True)
            errors.append(await asyncio.to_thread(raised_by, stack.queue().ticket, ticket.id))
            assert ["was kept until 20" in str(error) for error in errors] == [True] * 4, errors
            assert all(isinstance(error, TicketNotFound) for error in errors)
            again = await queue.add(ONE, model=MODEL, key="gone", labels={"test": "deleted"})
            assert again.id != ticket.id, "its key is free again"

    asyncio.run(main())


def raised_by(call: Callable[[str], object], argument: str) -> Exception | None:
    try:
        call(argument)
    except LowtideError as error:
        return error
    return None


def test_a_redis_that_is_away_is_an_error_of_add(stack: Stack) -> None:
    async def main() -> None:
        async with queue_of(stack, redis_url="redis://127.0.0.1:1/0") as queue:
            with pytest.raises(StoreUnavailable, match="not reachable"):
                await queue.add(ONE, model=MODEL)

    asyncio.run(main())
