"""Singles, requests that are added one at a time: they are gathered, answered, and found again by their tickets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.blurbs import MODEL
from tests.integration.mugs import ONE, SOON, mugs, waiting
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import (
    AsyncBatchQueue,
    AsyncTicket,
    BatchQueue,
    InvalidBatch,
    Request,
    SpoolError,
    Ticket,
    TicketNotFound,
    TicketState,
)
from lowtide.protocol import BatchFiles, Stage, keys
from lowtide.spool import Spool


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("singles"), LOWTIDE_LINGER_SECONDS="0") as stack:
        stack.worker()
        yield stack


@pytest.fixture
def queue(stack: Stack) -> BatchQueue:
    return stack.queue(**SOON)


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
        result = queue.ticket(ticket.id).result(timeout=180)
        assert (result.key, result.metadata, result.text) == (request.key, request.metadata, request.contents)
    assert bare.result(timeout=180).key == bare.id
    assert bare.status().state is TicketState.DONE
    assert jobs_of(queue, *tickets, bare) <= 2
    assert waiting(stack) == 0


def test_singles_of_other_options_are_in_other_batches_and_share_jobs(pairs: Stack) -> None:
    queue = pairs.queue(gather_seconds=0.2)
    tickets = [queue.add(ONE, model=MODEL, labels={"team": team}) for team in ("jam", "tea")]
    tickets += queue.add_many([ONE, ONE], model="gemini-3.1-pro-preview")

    results = [ticket.result(timeout=180) for ticket in tickets]
    assert [result.labels for result in results] == [{"team": "jam"}, {"team": "tea"}, {}, {}]
    assert len({ticket.status().batch_id for ticket in tickets}) == 3
    assert [jobs_of(queue, *some) for some in (tickets[:2], tickets[2:])] == [1, 1]


def test_a_handler_gets_the_key_and_the_metadata_of_each_single(stack: Stack, queue: BatchQueue) -> None:
    requests = list(mugs(3))
    tickets = queue.add_many(requests, model=MODEL, on_result="stream://mugs", tenant="acme")
    bare = queue.add(ONE, model=MODEL, on_result="stream://mugs", tenant="acme")
    for ticket in (*tickets, bare):
        ticket.result(timeout=180)

    batch = queue.get(bare.status().batch_id)
    assert {result.key for result in batch.results()} <= {bare.id, *(request.key for request in requests)}
    wait_until(lambda: stack.redis.xlen(keys.stream("mugs")) > 0, what="an entry of the stream")


def test_a_large_single_waits_in_the_spool_and_is_an_orphan_afterwards(stack: Stack) -> None:
    queue = stack.queue(single_bytes=100, **SOON)
    large, small = Request(contents="Repeat " + "z" * 200 + "."), Request(contents="a.")
    tickets = queue.add_many([small, large, small], model=MODEL)

    assert [len(ticket.result(timeout=180).text or "") for ticket in tickets] == [2, 208, 2]
    assert stack.redis.scard(keys.SINGLE_FILES) == 0
    # Redis may go back to before they were gathered. The sweep deletes the file when it has the age of an orphan.
    assert len(Spool(stack.env["LOWTIDE_SPOOL_URL"]).names("singles")) == 1


def test_an_answer_is_reused_only_within_its_time(stack: Stack, queue: BatchQueue) -> None:
    first = queue.add(Request(contents="Once."), model=MODEL, tenant="once", reuse=3600)
    first.result(timeout=180)
    wait_until(lambda: queue.get(first.status().batch_id).summary().finished, what="its batch is finished")

    assert queue.add(Request(contents="Once."), model=MODEL, tenant="once", reuse=3600).id == first.id
    later = queue.add(Request(contents="Once."), model=MODEL, tenant="once", reuse=0.001)
    assert later.id != first.id
    later.result(timeout=180)  # so that it does not wait in another test
    with pytest.raises(InvalidBatch, match=r"reuse: .*calls no handler"):
        queue.add(ONE, model=MODEL, tenant="once", reuse=60, on_result="stream://mugs")


def test_a_failure_is_not_reused(queue: BatchQueue) -> None:
    refused = Request(contents="[[safety]] Once more.")
    first = queue.add(refused, model=MODEL, tenant="failing", reuse=60, outcomes={"SAFETY": "fail"})
    assert first.result(timeout=180).status == "failed"

    again = queue.add(refused, model=MODEL, tenant="failing", reuse=60)
    assert again.id != first.id
    again.result(timeout=180)  # so that it does not wait in another test


def test_a_ticket_says_until_when_its_result_was_kept(stack: Stack) -> None:
    queue = stack.queue(ticket_seconds=4, **SOON)  # it must be there still when its result is asked for
    ticket = queue.add(ONE, model=MODEL, share=False)
    assert ticket.result(timeout=180).status == "succeeded"

    def is_gone() -> str:
        try:
            ticket.status()
        except TicketNotFound as error:
            return str(error)
        return ""

    assert "was kept until 20" in wait_until(is_gone, timeout=180, what="the ticket is gone")


def test_a_batch_that_is_cancelled_while_it_gathers_ends_its_tickets(stack: Stack) -> None:
    first = stack.queue(gather_seconds=600.0).add(ONE, model=MODEL, tenant="cancelled")
    queue = stack.queue(**SOON)
    queue.get(first.status().batch_id).cancel()
    second = queue.add(ONE, model=MODEL, tenant="cancelled")
    gathers = keys.batch_member(first.status().batch_id)
    assert stack.redis.zadd(keys.clock(Stage.GATHER.queue), {gathers: 0}, xx=True, ch=True), "its time is over now"

    assert first.result(timeout=180).status == "cancelled"
    assert second.result(timeout=180).status == "succeeded"
    assert waiting(stack) == 0


def test_a_ticket_of_a_bundled_batch_that_is_cancelled_ends_while_the_bundle_runs(pairs: Stack) -> None:
    queue = pairs.queue(gather_seconds=0.2)
    with pairs.held_jobs():
        tickets = [queue.add(ONE, model=MODEL, labels={"team": team}) for team in ("stays", "leaves")]
        stays, leaves = (queue.get(ticket.status().batch_id) for ticket in tickets)
        wait_until(lambda: leaves.status().state == "running", what="the bundle has a job")
        assert stays.status().bundle == leaves.status().bundle
        leaves.cancel()
        assert tickets[1].result(timeout=180).status == "cancelled"
        assert tickets[0].status().state is TicketState.SENT
    assert tickets[0].result(timeout=180).status == "succeeded"


def test_a_ticket_whose_result_is_lost_raises_and_waits_for_nothing(stack: Stack, queue: BatchQueue) -> None:
    lost, beside = queue.add_many(mugs(2), model=MODEL, share=False)
    batch_id = lost.status().batch_id
    queue.get(batch_id).wait(timeout=180)
    spool = Spool(stack.env["LOWTIDE_SPOOL_URL"])
    [name] = spool.names(BatchFiles(batch_id).results)
    text = spool.read(name)
    key = lost.result(timeout=180).key.encode()
    spool.put(name, text.replace(b'"key":"%b"' % key, b'"key":"%b"' % (b"x" * len(key))))

    async def both() -> list[Any]:
        async with AsyncBatchQueue(queue.settings) as later:
            waits = [
                (await later.ticket(beside.id)).result(30),
                AsyncTicket(lost.id, await later._tickets()).result(30),
            ]
            return await asyncio.gather(*waits, return_exceptions=True)

    with pytest.raises(SpoolError, match=rf"ticket {lost.id} is not in the spool; restore batches/{batch_id}/results"):
        lost.result(timeout=180)
    found, problem = asyncio.run(both())
    stack.redis.hset(keys.batch(batch_id), "error", '{"reason":"REQUESTS_LOST","message":"m"}')
    assert found == beside.result(timeout=180), "it was answered before"
    assert isinstance(problem, SpoolError)


def test_batches_of_singles_are_found_by_their_id_and_not_listed(stack: Stack, queue: BatchQueue) -> None:
    submitted = queue.submit([Request(key="a", contents="Listed.")], model=MODEL)
    ticket = queue.add(ONE, model=MODEL)
    ticket.result(timeout=180)

    listed = {batch.id for batch in queue.list(page_size=1000).batches}
    assert submitted.id in listed
    assert ticket.status().batch_id not in listed
    assert queue.get(ticket.status().batch_id).wait(timeout=180).succeeded >= 1


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

    assert [str(ticket.result(timeout=180).error) for ticket in tickets] == ["None"] * len(tickets)
