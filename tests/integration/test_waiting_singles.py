"""Singles that wait for a worker: their keys, equal requests, limits, refusals and memory."""

from __future__ import annotations

from typing import Any, cast

import pytest
from tests.integration.blurbs import MODEL
from tests.integration.mugs import ONE, waiting
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import (
    IdempotencyConflict,
    InvalidBatch,
    InvalidRequest,
    QueueFull,
    Request,
    TicketNotFound,
    TicketState,
    WaitTimeout,
)
from lowtide.protocol import BatchFiles, Stage, TicketId, keys
from lowtide.spool import Spool
from lowtide.store.connection import described
from lowtide.store.durability import NotOnDisk
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.gather import gather
from lowtide_worker.state import Done, HeldBatch, Superseded


def test_the_same_key_returns_the_same_ticket_and_refuses_other_content(still: Stack) -> None:
    queue = still.queue()
    before = waiting(still)
    first = queue.add(ONE, model=MODEL, key="order-17", tenant="acme")

    assert queue.add(ONE, model=MODEL, key="order-17", tenant="acme").id == first.id
    assert [
        t.id for t in queue.add_many([Request(key="order-17", contents=ONE.contents)] * 2, model=MODEL, tenant="acme")
    ] == [first.id] * 2
    assert queue.add(ONE, model=MODEL, key="order-17", tenant="globex").id != first.id
    with pytest.raises(IdempotencyConflict, match="key 'order-17' belongs to other content") as caught:
        queue.add(Request(contents="Other."), model=MODEL, key="order-17", tenant="acme")
    assert first.id not in str(caught.value), "whoever has a ticket can read its result"
    with pytest.raises(IdempotencyConflict):
        queue.add(ONE, model=MODEL, key="order-17", tenant="acme", priority=1)
    assert waiting(still) - before == 2


@pytest.mark.parametrize(
    "fields",
    [{"state": "deleting"}, {"state": "failed", "error": '{"reason":"REQUESTS_LOST","message":"m"}'}],
    ids=["deleting", "lost"],
)
def test_a_batch_whose_results_never_come_gives_up_its_keys(still: Stack, fields: Any) -> None:
    queue = still.queue()
    first = queue.add(ONE, model=MODEL, key="given up", tenant=fields["state"])
    still.redis.hset(keys.batch(first.status().batch_id), mapping=fields)

    assert queue.add(ONE, model=MODEL, key="given up", tenant=fields["state"]).id != first.id


def test_a_retry_writes_again_so_that_it_can_wait_for_the_disk(still: Stack) -> None:
    def writes() -> int:
        return int(still.redis.info("persistence")["rdb_changes_since_last_save"])

    first = still.queue().add(ONE, model=MODEL, key="durable")
    before = writes()
    assert still.queue().add(ONE, model=MODEL, key="durable", durable=True).id == first.id
    assert writes() > before
    # Its error is not that of a server which does not answer.
    assert "Do it again under the same key" in described(NotOnDisk("not on disk after 2 s"), still.redis_server.url)


def test_a_key_is_free_again_after_its_time(still: Stack) -> None:
    queue = still.queue(key_seconds=1)
    first = queue.add(ONE, model=MODEL, key="passing")

    wait_until(lambda: queue.add(ONE, model=MODEL, key="passing").id != first.id, what="another ticket")


def test_many_equal_requests_are_asked_once(still: Stack) -> None:
    queue = still.queue()
    before = waiting(still)
    tickets = queue.add_many([Request(contents="The same.")] * 2000, model=MODEL, reuse=60)
    keyed = queue.add(Request(contents="The same."), model=MODEL, reuse=60, key="one more")

    assert {ticket.id for ticket in tickets} == {keyed.id}
    assert queue.add(Request(contents="The same."), model=MODEL, key="one more", reuse=60).id == keyed.id
    assert waiting(still) - before == 1
    unlike = [
        queue.add(Request(contents="The same."), model=MODEL),
        queue.add(Request(contents="The same."), model=MODEL, reuse=60, tenant="acme"),
        queue.add(Request(contents="The same.", config={"temperature": 1}), model=MODEL, reuse=60),
        queue.add(Request(contents="The same."), model="gemini-3.1-pro-preview", reuse=60),
    ]
    assert len({keyed.id, *(ticket.id for ticket in unlike)}) == 5


@pytest.mark.parametrize("ended", ["failed", "expired", "cancelled"])
def test_a_batch_with_a_request_that_ended_without_an_answer_answers_none(still: Stack, ended: str) -> None:
    queue, request = still.queue(), Request(contents=f"Whether it has {ended}.")
    first = queue.add(request, model=MODEL, reuse=60)
    batch = keys.batch(TicketId.parse(first.id).batch_id)
    still.redis.hset(batch, mapping={"state": "running", "succeeded": 1})
    assert queue.add(request, model=MODEL, reuse=60).id == first.id

    still.redis.hincrby(batch, ended, 1)

    again = queue.add(request, model=MODEL, reuse=60)
    assert again.id != first.id
    assert queue.add(request, model=MODEL, reuse=60).id == again.id


def test_a_batch_that_is_being_cancelled_answers_none(still: Stack) -> None:
    queue, request = still.queue(), Request(contents="Whether it is being cancelled.")
    first = queue.add(request, model=MODEL, reuse=60)
    batch_id = TicketId.parse(first.id).batch_id

    queue.get(batch_id).cancel()

    assert queue.get(batch_id).summary().state == "cancelling"
    assert queue.add(request, model=MODEL, reuse=60).id != first.id


def test_a_ticket_says_what_waits_and_that_no_other_exists(still: Stack) -> None:
    queue = still.queue()
    ticket = queue.add(ONE, model=MODEL)
    parts = TicketId.parse(ticket.id)
    beside = TicketId(parts.batch_id, parts.ordinal + 1, parts.check)

    assert queue.ticket(ticket.id).status().state is TicketState.WAITING
    with pytest.raises(WaitTimeout, match="has no result after 0 s"):
        ticket.result(timeout=0)
    for wrong in (str(beside), f"{ticket.id[:-1]}g", "", "x" * 1000, "b.0.", None, f"{parts.batch_id}.0"):
        with pytest.raises(TicketNotFound):
            queue.ticket(wrong)  # type: ignore[arg-type]


def test_beyond_the_limit_nothing_is_recorded(still: Stack) -> None:
    before = waiting(still)
    queue = still.queue(max_singles_waiting=before + 2)
    first = queue.add(ONE, model=MODEL, key="within")
    for late in (2, 700):
        with pytest.raises(QueueFull, match=f"{before + 1:,} singles wait") as caught:
            queue.add_many([Request(key=f"full-{late}-{n}", contents="x" * 10) for n in range(late)], model=MODEL)
        assert (caught.value.waiting, caught.value.most) == (before + 1, before + 2)
    with pytest.raises(QueueFull):
        queue.add_many([ONE, ONE], model=MODEL, block=0.2)

    assert waiting(still) == before + 1
    queue.add(ONE, model=MODEL)
    assert queue.add(ONE, model=MODEL, key="within").id == first.id, "one that is known needs no room"
    assert Spool(still.env["LOWTIDE_SPOOL_URL"]).names("singles") == []


@pytest.mark.parametrize(
    ("request_", "options", "error", "text"),
    [
        (Request(contents=5), {}, InvalidRequest, "contents"),
        (ONE, {"key": "k" * 1_000_000}, InvalidRequest, "key"),
        (Request(contents="x" * 3000), {}, InvalidRequest, "that one job may hold"),
        ({"contents": "a", "key": "a"}, {"key": "b"}, InvalidRequest, "given twice"),
        ("just text", {}, InvalidRequest, "expected a lowtide.Request"),
        (ONE, {"tenant": ""}, InvalidBatch, "tenant"),
        (ONE, {"reuse": -1}, InvalidBatch, "reuse"),
        (ONE, {"block": 3601}, InvalidBatch, "block: expected a number of seconds from 0 to 3,600"),
        (ONE, {"durable": "yes"}, InvalidBatch, "durable"),
        (ONE, {"provider": "vertex", "share": False}, InvalidBatch, "share: single requests share jobs on Vertex AI"),
        (ONE, {"destination": "gs://b/o"}, TypeError, "add has no option 'destination'"),
        (ONE, {"tennant": "acme"}, TypeError, "did you mean 'tenant'"),
    ],
    ids=[
        "contents",
        "long key",
        "too large",
        "two keys",
        "text",
        "tenant",
        "reuse",
        "block",
        "durable",
        "alone on Vertex AI",
        "foreign",
        "typo",
    ],
)
def test_what_cannot_be_sent_is_refused_and_leaves_nothing(
    still: Stack, request_: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    before = waiting(still)
    queue = still.queue(max_bytes_per_job=2000)

    with pytest.raises(error, match=text):
        queue.add(request_, model=MODEL, **options)
    with pytest.raises(error):
        queue.add_many(
            [ONE, request_], model=MODEL, **{k: v for k, v in options.items() if k != "key"}
        ) if "key" not in options else queue.add(request_, model=MODEL, **options)
    assert waiting(still) == before


def test_a_worker_that_has_lost_a_gathering_changes_nothing(still: Stack) -> None:
    queue, spool = still.queue(), Spool(still.env["LOWTIDE_SPOOL_URL"])
    [ticket, *_] = queue.add_many([ONE] * 3, model=MODEL, tenant="twice")
    batch_id = ticket.status().batch_id
    workers = [Runtime(still.worker_settings()) for _ in range(2)]

    def begun(worker: Runtime) -> HeldBatch:
        token = int(cast("bytes", still.redis.hget(keys.batch(batch_id), "token")))
        held = worker.clock.begin(Stage.GATHER, keys.batch_member(batch_id), token)
        assert isinstance(held, HeldBatch)
        return held

    frozen, held = begun(workers[0]), begun(workers[1])
    assert gather(workers[1], held) == Done({"singles": 3})
    name = BatchFiles(batch_id).index
    before = spool.read(name), still.redis.hgetall(keys.batch(batch_id)), waiting(still)

    for worker, late in zip(workers, (frozen, held), strict=True):
        with pytest.raises(Superseded):
            gather(worker, late)
    assert (spool.read(name), still.redis.hgetall(keys.batch(batch_id)), waiting(still)) == before


def test_a_waiting_single_takes_little_more_memory_than_its_payload(still: Stack) -> None:
    queue = still.queue(gather_requests=10_000_000)
    size = 500
    queue.add_many((Request(key=f"warm-{n}", contents="w") for n in range(10)), model=MODEL, tenant="memory")
    before = still.redis.info("memory")["used_memory"]
    queue.add_many((Request(key=f"memory-{n}", contents="x" * size) for n in range(5000)), model=MODEL, tenant="memory")
    each = (still.redis.info("memory")["used_memory"] - before) / 5000

    assert each < 1.5 * size + 400, f"{each:.0f} bytes"
