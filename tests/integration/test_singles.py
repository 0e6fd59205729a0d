"""Singles: requests that are added one at a time are durable, gathered into batches, asked once, and found again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest
from tests.integration.blurbs import MODEL
from tests.integration.mugs import ONE, SOON, mugs, waiting
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import (
    AsyncBatchQueue,
    AsyncTicket,
    BatchQueue,
    IdempotencyConflict,
    InvalidBatch,
    InvalidRequest,
    QueueFull,
    Request,
    SpoolError,
    Ticket,
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


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("singles"), LOWTIDE_LINGER_SECONDS="0") as stack:
        stack.worker()
        yield stack


@pytest.fixture
def queue(stack: Stack) -> BatchQueue:
    return stack.queue(**SOON)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack without a worker: singles wait."""
    with Stack(tmp_path_factory.mktemp("still")) as stack:
        yield stack


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose bundles wait for a second request, however long it takes to come."""
    env = {"LOWTIDE_LINGER_SECONDS": "600", "LOWTIDE_LINGER_REQUESTS": "2"}
    with Stack(tmp_path_factory.mktemp("pairs"), None, cloud=None, **env) as stack:
        stack.worker("-P", "threads", "-c", "2")
        yield stack


def jobs_of(queue: BatchQueue, *tickets: Ticket) -> int:
    """How many jobs the provider has had for the batches of these tickets."""
    batches = {ticket.status().batch_id for ticket in tickets}
    return len({job.id for batch_id in batches for job in queue.get(batch_id).status().jobs if job.name})


def test_each_single_gets_the_result_of_its_own_request(stack: Stack, queue: BatchQueue) -> None:
    requests = list(mugs(5))
    tickets = queue.add_many(requests, model=MODEL)
    bare = queue.add(ONE, model=MODEL)

    for request, ticket in zip(requests, tickets, strict=True):
        result = queue.ticket(ticket.id).result(timeout=60)
        assert (result.key, result.metadata, result.text) == (request.key, request.metadata, request.contents)
    assert bare.result(timeout=60).key == bare.id
    assert bare.status().state is TicketState.DONE
    assert jobs_of(queue, *tickets, bare) <= 2
    assert waiting(stack) == 0


def test_singles_of_other_options_are_in_other_batches_and_share_jobs(pairs: Stack) -> None:
    queue = pairs.queue(gather_seconds=0.2)
    tickets = [queue.add(ONE, model=MODEL, tenant=tenant) for tenant in ("acme", "globex")]
    tickets += queue.add_many([ONE, ONE], model="gemini-3.1-pro-preview")

    results = [ticket.result(timeout=60) for ticket in tickets]
    assert [result.labels for result in results] == [{"tenant": "acme"}, {"tenant": "globex"}, {}, {}]
    assert len({ticket.status().batch_id for ticket in tickets}) == 3
    assert [jobs_of(queue, *some) for some in (tickets[:2], tickets[2:])] == [1, 1]


def test_a_handler_gets_the_key_and_the_metadata_of_each_single(stack: Stack, queue: BatchQueue) -> None:
    requests = list(mugs(3))
    tickets = queue.add_many(requests, model=MODEL, on_result="stream://mugs", tenant="acme")
    bare = queue.add(ONE, model=MODEL, on_result="stream://mugs", tenant="acme")
    for ticket in (*tickets, bare):
        ticket.result(timeout=60)

    batch = queue.get(bare.status().batch_id)
    assert {result.key for result in batch.results()} <= {bare.id, *(request.key for request in requests)}
    wait_until(lambda: stack.redis.xlen(keys.stream("mugs")) > 0, what="an entry of the stream")


def test_a_large_single_waits_in_the_spool_and_is_an_orphan_afterwards(stack: Stack) -> None:
    queue = stack.queue(single_bytes=100, **SOON)
    large, small = Request(contents="Repeat " + "z" * 200 + "."), Request(contents="a.")
    tickets = queue.add_many([small, large, small], model=MODEL)

    assert [len(ticket.result(timeout=60).text or "") for ticket in tickets] == [2, 208, 2]
    assert stack.redis.scard(keys.SINGLE_FILES) == 0
    # Redis may go back to before they were gathered. The sweep deletes the file when it has the age of an orphan.
    assert len(Spool(stack.env["LOWTIDE_SPOOL_URL"]).names("singles")) == 1


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


def test_an_answer_is_reused_only_within_its_time(stack: Stack, queue: BatchQueue) -> None:
    first = queue.add(Request(contents="Once."), model=MODEL, tenant="once", reuse=3600)
    first.result(timeout=60)
    wait_until(lambda: queue.get(first.status().batch_id).summary().finished, what="its batch is finished")

    assert queue.add(Request(contents="Once."), model=MODEL, tenant="once", reuse=3600).id == first.id
    later = queue.add(Request(contents="Once."), model=MODEL, tenant="once", reuse=0.001)
    assert later.id != first.id
    later.result(timeout=60)  # so that it does not wait in another test
    with pytest.raises(InvalidBatch, match=r"reuse: .*calls no handler"):
        queue.add(ONE, model=MODEL, tenant="once", reuse=60, on_result="stream://mugs")


def test_a_failure_is_not_reused(queue: BatchQueue) -> None:
    refused = Request(contents="[[safety]] Once more.")
    first = queue.add(refused, model=MODEL, tenant="failing", reuse=60, outcomes={"SAFETY": "fail"})
    assert first.result(timeout=60).status == "failed"

    again = queue.add(refused, model=MODEL, tenant="failing", reuse=60)
    assert again.id != first.id
    again.result(timeout=60)  # so that it does not wait in another test


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


def test_a_ticket_says_until_when_its_result_was_kept(stack: Stack) -> None:
    queue = stack.queue(ticket_seconds=4, **SOON)  # it must be there still when its result is asked for
    ticket = queue.add(ONE, model=MODEL, share=False)
    assert ticket.result(timeout=60).status == "succeeded"

    def is_gone() -> str:
        try:
            ticket.status()
        except TicketNotFound as error:
            return str(error)
        return ""

    assert "was kept until 20" in wait_until(is_gone, timeout=60, what="the ticket is gone")


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


def test_a_batch_that_is_cancelled_while_it_gathers_ends_its_tickets(stack: Stack) -> None:
    first = stack.queue(gather_seconds=600.0).add(ONE, model=MODEL, tenant="cancelled")
    queue = stack.queue(**SOON)
    queue.get(first.status().batch_id).cancel()
    second = queue.add(ONE, model=MODEL, tenant="cancelled")
    gathers = keys.batch_member(first.status().batch_id)
    assert stack.redis.zadd(keys.clock(Stage.GATHER.queue), {gathers: 0}, xx=True, ch=True), "its time is over now"

    assert first.result(timeout=60).status == "cancelled"
    assert second.result(timeout=60).status == "succeeded"
    assert waiting(stack) == 0


def test_a_ticket_of_a_bundled_batch_that_is_cancelled_ends_while_the_bundle_runs(pairs: Stack) -> None:
    queue = pairs.queue(gather_seconds=0.2)
    with pairs.held_jobs():
        tickets = [queue.add(ONE, model=MODEL, tenant=tenant) for tenant in ("stays", "leaves")]
        stays, leaves = (queue.get(ticket.status().batch_id) for ticket in tickets)
        wait_until(lambda: leaves.status().state == "running", what="the bundle has a job")
        assert stays.status().bundle == leaves.status().bundle
        leaves.cancel()
        assert tickets[1].result(timeout=60).status == "cancelled"
        assert tickets[0].status().state is TicketState.SENT
    assert tickets[0].result(timeout=60).status == "succeeded"


def test_a_ticket_whose_result_is_lost_raises_and_waits_for_nothing(stack: Stack, queue: BatchQueue) -> None:
    lost, beside = queue.add_many(mugs(2), model=MODEL, share=False)
    batch_id = lost.status().batch_id
    queue.get(batch_id).wait(timeout=60)
    spool = Spool(stack.env["LOWTIDE_SPOOL_URL"])
    [name] = spool.names(BatchFiles(batch_id).results)
    text = spool.read(name)
    key = lost.result(timeout=60).key.encode()
    spool.put(name, text.replace(b'"key":"%b"' % key, b'"key":"%b"' % (b"x" * len(key))))

    async def both() -> list[Any]:
        async with AsyncBatchQueue(queue.settings) as later:
            waits = [
                (await later.ticket(beside.id)).result(30),
                AsyncTicket(lost.id, await later._tickets()).result(30),
            ]
            return await asyncio.gather(*waits, return_exceptions=True)

    with pytest.raises(SpoolError, match=rf"ticket {lost.id} is not in the spool; restore batches/{batch_id}/results"):
        lost.result(timeout=30)
    found, problem = asyncio.run(both())
    stack.redis.hset(keys.batch(batch_id), "error", '{"reason":"REQUESTS_LOST","message":"m"}')
    assert found == beside.result(timeout=30), "it was answered before"
    assert isinstance(problem, SpoolError)


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


def test_batches_of_singles_are_found_by_their_id_and_not_listed(stack: Stack, queue: BatchQueue) -> None:
    submitted = queue.submit([Request(key="a", contents="Listed.")], model=MODEL)
    ticket = queue.add(ONE, model=MODEL)
    ticket.result(timeout=60)

    listed = {batch.id for batch in queue.list(page_size=1000).batches}
    assert submitted.id in listed
    assert ticket.status().batch_id not in listed
    assert queue.get(ticket.status().batch_id).wait(timeout=60).succeeded >= 1


@pytest.mark.thorough
def test_requests_of_types_that_exclude_each_other_are_gathered_on_vertex_ai(vertex: Stack) -> None:
    queue = vertex.queue(gather_seconds=0.2, linger_seconds=0.0, linger_requests=2)
    inner = {"type": "OBJECT", "properties": {"c": {"type": "STRING"}}}
    odd = [
        {
            "contents": "One.",
            "config": {
                "response_mime_type": "application/json",
                "response_schema": {"type": "OBJECT", "properties": {"a": kind}},
            },
        }
        for kind in ({"type": "STRING"}, inner)
    ]
    tickets = queue.add_many([*odd, ONE, *mugs(3)], model=MODEL)

    assert [str(ticket.result(timeout=90).error) for ticket in tickets] == ["None"] * len(tickets)


def test_a_waiting_single_takes_little_more_memory_than_its_payload(still: Stack) -> None:
    queue = still.queue(gather_requests=10_000_000)
    size = 500
    queue.add_many((Request(key=f"warm-{n}", contents="w") for n in range(10)), model=MODEL, tenant="memory")
    before = still.redis.info("memory")["used_memory"]
    queue.add_many((Request(key=f"memory-{n}", contents="x" * size) for n in range(5000)), model=MODEL, tenant="memory")
    each = (still.redis.info("memory")["used_memory"] - before) / 5000

    assert each < 1.5 * size + 400, f"{each:.0f} bytes"
