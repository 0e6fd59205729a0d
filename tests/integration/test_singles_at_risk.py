"""Singles where a server or the spool fails: nothing is half kept, and nobody gets what is another's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from tests.integration.blurbs import MODEL
from tests.integration.mugs import ONE, SOON, mugs, waiting
from tests.proxy import Loss, RedisProxy
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import (
    AsyncBatchQueue,
    BatchQueue,
    InvalidBatch,
    InvalidRequest,
    QueueFull,
    Request,
    Settings,
    StoreUnavailable,
    Ticket,
    TicketState,
)
from lowtide.protocol import Stage, keys
from lowtide.spool import Spool
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.gather import gather
from lowtide_worker.state import HeldBatch


def in_a_loop(settings: Settings, *added: Request, **options: Any) -> None:
    """Adds requests by the client of an event loop."""

    async def main() -> None:
        async with AsyncBatchQueue(settings) as queue:
            await queue.add_many(added, model=MODEL, **options)

    asyncio.run(main())


def blocking(settings: Settings, *added: Request, **options: Any) -> None:
    BatchQueue(settings).add_many(added, model=MODEL, **options)


def alone(settings: Settings, added: Request, **options: Any) -> None:
    BatchQueue(settings).add(added, model=MODEL, **options)


@pytest.mark.parametrize("durable", [False, True], ids=["in memory", "durable"])
@pytest.mark.parametrize("add", [alone, blocking, in_a_loop])
def test_a_call_whose_reply_is_lost_says_so_and_has_recorded_its_request_once(
    still: Stack, add: Callable[..., None], durable: bool
) -> None:
    one = Request(contents=f"Lost {os.urandom(8).hex()}.")
    keyed = Request(contents=one.contents, key=os.urandom(8).hex())
    alone(still.settings(), ONE)  # now Redis knows the script
    with RedisProxy(still.redis_server) as proxy:
        for lost in (one, keyed):
            before = waiting(still)
            proxy.lose(str(one.contents).encode(), Loss.CUT, 1)
            with pytest.raises(StoreUnavailable):
                add(still.settings(redis_url=proxy.url), lost, durable=durable)
            assert proxy.hits == 1
            assert waiting(still) == before + 1
    add(still.settings(), keyed, durable=durable)
    assert waiting(still) == before + 1, "it was added again under its key"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"key": "k" * 1_000_000}, InvalidRequest, "key: longer than"),
        ({"key": "\ud800"}, InvalidRequest, "key: has a lone surrogate"),
        ({"tenant": "acme", "labels": {"tenant": "globex"}}, InvalidBatch, "tenant: given twice"),
        ({"tenant": "acme", "labels": ["globex"]}, InvalidBatch, "labels: expected a mapping"),
        ({"model": [MODEL]}, InvalidBatch, "model: expected a string"),
    ],
    ids=["long key", "half a character", "two tenants", "labels", "model"],
)
def test_a_wrong_option_is_an_error_that_a_log_can_hold(
    still: Stack, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    before = waiting(still)
    with pytest.raises(error, match=says) as caught:
        still.queue().add(ONE, **{"model": MODEL, **options})
    assert len(str(caught.value).encode()) < 300
    assert waiting(still) == before


def test_two_producers_that_wait_for_room_get_it_one_after_the_other(still: Stack) -> None:
    most = waiting(still) + 4
    worker = Runtime(still.worker_settings())

    def gather_all() -> None:
        batch_id = cast("bytes", still.redis.get(keys.gathering(lane))).decode()
        member, hash_name = keys.batch_member(batch_id), keys.batch(batch_id)
        held = worker.clock.begin(Stage.GATHER, member, int(cast("bytes", still.redis.hget(hash_name, "token"))))
        assert isinstance(held, HeldBatch)
        gather(worker, held)

    settings = still.settings(max_singles_waiting=most)
    options = {"tenant": "full", "block": 60.0}
    lane = BatchQueue(settings).intended(MODEL, options).lane.name  # type: ignore[arg-type]
    blocking(settings, *mugs(4), **options)
    with ThreadPoolExecutor() as pool:
        waits = [pool.submit(add, settings, *mugs(3), **options) for add in (blocking, in_a_loop)]
        with pytest.raises(QueueFull):
            alone(settings, ONE, tenant="full", block=0.2)
        assert not any(wait.done() for wait in waits)
        gather_all()
        wait_until(lambda: any(wait.done() for wait in waits), what="one is in")
        assert [wait.done() for wait in waits].count(True) == 1
        assert waiting(still) == most - 1
        gather_all()
        assert [wait.result(timeout=180) for wait in waits] == [None, None]
    assert waiting(still) == most - 1


def test_files_that_no_single_needs_are_removed_and_needed_ones_stay(tmp_path: Path) -> None:
    with Stack(tmp_path, LOWTIDE_ORPHAN_SECONDS="1", LOWTIDE_SWEEP_SECONDS="1", LOWTIDE_GATHER_SECONDS="3600") as stack:
        queue = stack.queue(single_bytes=100, gather_seconds=3600.0)
        queue.add(Request(contents="needed " + "z" * 200), model=MODEL)
        spool = Spool(stack.env["LOWTIDE_SPOOL_URL"])
        [needed] = spool.names("singles")
        spool.put("singles/orphan.json", b"{}")
        stack.worker("-P", "solo")

        wait_until(lambda: spool.names("singles") == [needed], timeout=180, what="the orphan is removed")


def test_a_batch_whose_large_single_is_lost_fails_and_says_so(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        queue = stack.queue(single_bytes=100, **SOON)
        lost, beside = queue.add_many([Request(contents="lost " + "z" * 200), ONE], model=MODEL)
        spool = Spool(stack.env["LOWTIDE_SPOOL_URL"])
        for name in spool.names("singles"):
            spool.delete(name)
        stack.worker("-P", "solo")
        other = queue.add(ONE, model=MODEL, tenant="acme")

        assert other.result(timeout=180).status == "succeeded"
        for ticket in (lost, beside):
            result = ticket.result(timeout=180)
            assert result.error
            assert (result.key, result.status, result.error.reason) == (ticket.id, "failed", "REQUESTS_LOST")
        assert waiting(stack) == 0
        assert stack.redis.keys("lowtide:singles:*") == []
        assert stack.redis.smembers(keys.SINGLE_FILES) == set()


def test_a_redis_that_may_have_lost_writes_gives_out_no_ticket_of_before(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        queue = stack.queue()
        before = queue.add(ONE, model=MODEL)
        assert queue.add(ONE, model=MODEL).status().batch_id == before.status().batch_id
        stack.redis_server.kill()
        stack.redis_server.start()
        after = queue.add(ONE, model=MODEL)

        assert after.status().batch_id != before.status().batch_id
        assert {ticket.status().state for ticket in (before, after)} == {TicketState.WAITING}


def test_a_full_redis_keeps_no_half_of_a_single(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        queue = stack.queue()
        queue.add(ONE, model=MODEL, key="before")
        before = sorted(stack.redis.keys("lowtide:*"))
        stack.redis.config_set("maxmemory", "1")
        for add in (blocking, in_a_loop):
            with pytest.raises(StoreUnavailable, match=r"OOM|maxmemory"):
                add(stack.settings(), *mugs(3), tenant="acme", reuse=60)
        stack.redis.config_set("maxmemory", "0")

        assert sorted(stack.redis.keys("lowtide:*")) == before
        assert waiting(stack) == 1
        assert isinstance(queue.add(ONE, model=MODEL, key="before", durable=True), Ticket)
