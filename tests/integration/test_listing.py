"""Pages of batches: labels, bounded reads, and the progress of batches whose results are still to come."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tests.records import a_batch, a_job, hash_of
from tests.stack import Stack

from lowtide import BatchNotFound, BatchQueue, Request
from lowtide.protocol import Queue, keys
from lowtide.states import BatchState, JobState
from lowtide_cli.terminal.output import waiting_text
from lowtide_worker.runtime import Runtime


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("listing")) as stack:
        yield stack


@pytest.fixture
def queue(stack: Stack) -> BatchQueue:
    stack.empty_redis()
    return stack.queue()


def add(stack: Stack, number: int, **fields: Any) -> str:
    batch = a_batch(f"b0list-{number}", created=float(number), **fields)
    stack.redis.hset(keys.batch(batch.id), mapping=hash_of(batch))
    stack.redis.zadd(keys.BATCHES, {batch.id: batch.created})
    return batch.id


def test_batches_with_a_label_are_found_among_many_by_calls_that_read_a_limited_number(
    stack: Stack, queue: BatchQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lowtide.store.batches._MOST_READ", 100)
    wanted = {number: add(stack, number, labels={"team": "shop", "day": str(number)}) for number in (3, 5, 240)}
    for number in range(250):
        if number not in wanted:
            add(stack, number, labels={"team": "other"})

    pages = [queue.list(labels={"team": "shop"}, page_size=10)]
    while token := pages[-1].next_page_token:
        pages.append(queue.list(labels={"team": "shop"}, page_size=10, page_token=token))

    found = [[status.id for status in page.batches] for page in pages]
    assert found == [[wanted[240]], [], [wanted[5], wanted[3]]]
    page = queue.list(labels={"team": "shop", "day": "240"}, state=BatchState.RUNNING)
    assert [status.id for status in page.batches] == [wanted[240]]


def test_requests_that_the_provider_has_answered_are_shown_before_their_results_come(
    stack: Stack, queue: BatchQueue
) -> None:
    batch_id = add(stack, 1, total=30, jobs=3, open=2, succeeded=10)
    states: dict[int, dict[str, Any]] = {
        1: {"state": JobState.SUCCEEDED, "done_requests": 10},
        2: {"state": JobState.RUNNING, "done_requests": 7},
        3: {"state": JobState.RUNNING},
    }
    for number, fields in states.items():
        job = a_job(f"{batch_id}-{number}", requests=10, **fields)
        stack.redis.hset(keys.job(job.id), mapping=hash_of(job))

    [listed] = queue.list().batches

    assert (listed.settled, listed.answered, listed.jobs) == (10, 17, [])
    assert queue.get(batch_id).status().answered == 17


def test_a_damaged_job_does_not_hide_its_batch(stack: Stack, queue: BatchQueue) -> None:
    batch_id = add(stack, 1, total=30, jobs=1, open=1)
    stack.redis.set(keys.job(f"{batch_id}-1"), "x")

    [listed] = queue.list().batches

    assert listed.answered == 0
    assert "cannot be read" in listed.problems[-1]


RULE = ["https://shop.example/hooks/", "https://other.example/one"]


@pytest.mark.parametrize(
    ("rule", "url", "warns"),
    [
        (None, "https://shop.example/other", False),
        (RULE, "https://shop.example/hooks/results", False),
        (RULE, "https://shop.example/other", True),
        ([], "https://shop.example/hooks/results", True),
    ],
    ids=["unknown rule", "allowed", "not allowed", "none allowed"],
)
def test_a_webhook_that_the_workers_may_not_call_is_warned_of_at_submit(
    stack: Stack,
    queue: BatchQueue,
    caplog: pytest.LogCaptureFixture,
    rule: list[str] | None,
    url: str,
    warns: bool,
) -> None:
    if rule is not None:
        Runtime(stack.worker_settings()).deliveries.note_webhooks(rule)

    with caplog.at_level(logging.WARNING, logger="lowtide"):
        queue.submit([Request(key="a", contents="x")], model="gemini-3.5-flash", on_result=url)

    assert (f"the workers may not call {url}: name it in their LOWTIDE_WEBHOOK_SECRETS" in caplog.text) is warns


def test_the_batches_of_a_bundle_are_listed_page_by_page(stack: Stack, queue: BatchQueue) -> None:
    ids = [add(stack, number, bundle="b0bundle", total=10) for number in range(5)]
    add(stack, 9, total=10)
    stack.redis.zadd(keys.bundled("b0bundle"), {batch_id: 10 * place for place, batch_id in enumerate(ids)})
    stack.redis.zadd(keys.bundled("b0bundle"), {"b0list-deleted": 15})

    pages = [queue.list(bundle="b0bundle", page_size=2)]
    while token := pages[-1].next_page_token:
        pages.append(queue.list(bundle="b0bundle", page_size=2, page_token=token))

    assert [[status.id for status in page.batches] for page in pages] == [ids[:2:-1], ids[2:0:-1], ids[:1]]
    assert queue.list(bundle="b0other").batches == []
    for wrong in ("", "B", "x" * 10_000, "\ud800", "b0\n"):
        with pytest.raises(ValueError, match="bundle: give the id of a bundle"):
            queue.list(bundle=wrong)


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"awaits": "slot"}, "all slots for live jobs at gemini are taken; place 2 in the line"),
        ({"awaits": "tokens"}, "the live jobs of gemini-3.5-flash have 90 of 100 tokens; place 2 in the line"),
        (
            {"throttled": 2, "problem": "full"},
            "full; the live jobs of gemini-3.5-flash have 90 tokens; next",
        ),
    ],
    ids=["a slot", "tokens", "a quota"],
)
def test_the_command_line_says_what_a_batch_waits_for(
    stack: Stack, queue: BatchQueue, fields: dict[str, Any], shown: str
) -> None:
    batch_id = add(stack, 1, total=5, tokens=80, jobs=1, open=1)
    job = a_job(f"{batch_id}-1", requests=5, last=5, tokens=70, **fields)
    stack.redis.hset(keys.job(job.id), mapping=hash_of(job))
    stack.redis.zadd(keys.clock(Queue.JOBS), {keys.job_member(job.id): 2e9})
    stack.redis.hset(keys.live_tokens("gemini", "gemini-3.5-flash"), "b0other-1", "90")
    stack.redis.set(keys.quota("gemini", "gemini-3.5-flash"), b'{"learned": 100}')
    if "awaits" in fields:
        stack.redis.zadd(keys.waiting("gemini", "gemini-3.5-flash"), {"b0other-2": 1, job.id: 2})

    assert waiting_text(queue.get(batch_id).status()).startswith(f"5 requests with 70 tokens: {shown}")


@pytest.mark.parametrize("token", ["", "x", "nan:b0", "-inf:b0", "1:", "1:\ud800", "1:b0\n", "1" * 10_000 + ":b0"])
def test_a_page_token_that_is_none_is_refused_before_redis_is_asked(queue: BatchQueue, token: str) -> None:
    with pytest.raises(ValueError, match="give the next_page_token of another page") as refused:
        queue.list(page_token=token)
    assert len(str(refused.value)) < 100


@pytest.mark.parametrize("name", [None, 5, b"b0", ["b0"], "x" * 10_000, "\ud800"], ids=lambda name: type(name).__name__)
def test_what_is_no_batch_id_is_no_batch(queue: BatchQueue, name: Any) -> None:
    with pytest.raises(BatchNotFound, match="is not a batch id") as refused:
        queue.get(name)
    assert len(str(refused.value)) < 120
