"""Results reach a web service as signed requests: at least once, under a stable id, and only where it is allowed."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.receiver import SECRET, Answer, Receiver
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import InvalidBatch, Request
from lowtide.batch import Batch

MODEL = "gemini-3.5-flash"
LABELS = {"team": "shop"}


def submit(stack: Stack, url: str, count: int = 3) -> Batch:
    requests = [Request(key=f"sku-{n}", contents=f"Article {n}", metadata={"n": str(n)}) for n in range(count)]
    batch = stack.queue().submit(requests, model=MODEL, on_result=url, labels=LABELS)
    assert batch.wait(timeout=180).succeeded == count
    return batch


def lines(results: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(result, sort_keys=True) for result in results)


def stored(batch: Batch) -> list[str]:
    return lines([json.loads(line) for line in batch.result_lines()])


def redis_text(stack: Stack) -> Iterator[str]:
    """Every key with all it holds."""
    for key in stack.redis.scan_iter():
        yield f"{key!r} {stack.redis.dump(key)!r}"
        match stack.redis.type(key):
            case b"hash":
                yield repr(stack.redis.hgetall(key))
            case b"string":
                yield repr(stack.redis.get(key))
            case b"list":
                yield repr(stack.redis.lrange(key, 0, -1))


def test_every_result_is_posted_signed_and_as_it_is_stored(bare_stack: Stack) -> None:
    with Receiver() as shop:
        bare_stack.worker(LOWTIDE_SEGMENT_ROWS="10", **shop.env())

        batch = submit(bare_stack, f"{shop.url}results?shop=7", count=35)

        wait_until(lambda: batch.status().undelivered == 0, what="everything is delivered")
    assert not shop.refused
    assert {(hook.method, hook.path) for hook in shop.hooks} == {("POST", "/hooks/results?shop=7")}
    assert {hook.headers["content-type"] for hook in shop.hooks} == {"application/json"}
    assert {hook.data["batch_id"] for hook in shop.hooks} == {batch.id}
    assert [hook.data["labels"] for hook in shop.hooks] == [LABELS] * 4
    assert all(hook.data["delivery_id"] == hook.id for hook in shop.hooks)
    assert len({hook.id for hook in shop.hooks}) == len(shop.hooks) == 4
    assert lines([result for hook in shop.hooks for result in hook.data["results"]]) == stored(batch)


def test_a_request_that_failed_comes_again_under_the_same_id(bare_stack: Stack) -> None:
    with Receiver(lambda n: Answer(500 if n <= 2 else 200)) as shop:
        worker = bare_stack.worker(**shop.env())

        batch = submit(bare_stack, f"{shop.url}results")

        wait_until(lambda: batch.status().undelivered == 0, what="everything is delivered")
    assert len(shop.hooks) == 3
    assert len({hook.id for hook in shop.hooks}) == 1
    assert [hook.data["attempt"] for hook in shop.hooks] == [1, 2, 3]
    assert [lines(hook.data["results"]) for hook in shop.hooks] == [stored(batch)] * 3
    assert "answered 500: thanks" in worker.text


def test_a_redirect_is_a_failure_and_not_followed(bare_stack: Stack) -> None:
    with Receiver() as other, Receiver(lambda n: Answer(307, location=other.url) if n == 1 else Answer()) as shop:
        worker = bare_stack.worker(**shop.env())

        batch = submit(bare_stack, f"{shop.url}results")

        wait_until(lambda: batch.status().undelivered == 0, what="everything is delivered")
    assert len(shop.hooks) == 2
    assert not other.hooks
    assert not other.refused
    assert "answered 307; redirects are not followed" in worker.text


def test_a_service_that_does_not_answer_in_time_is_asked_again(bare_stack: Stack) -> None:
    with Receiver(lambda n: Answer(never=n == 1)) as shop:
        worker = bare_stack.worker(**shop.env(LOWTIDE_WEBHOOK_TIMEOUT_SECONDS="0.5"))

        batch = submit(bare_stack, f"{shop.url}results")

        wait_until(lambda: batch.status().undelivered == 0, what="everything is delivered")
    # On a busy machine, half a second may be too short for a later answer too.
    assert len(shop.hooks) >= 2
    assert len({hook.id for hook in shop.hooks}) == 1
    assert "did not answer within 0.5 s" in worker.text


@pytest.mark.parametrize(
    ("changes", "path", "reason"),
    [
        ({"LOWTIDE_WEBHOOK_ALLOW_PRIVATE": "false"}, "/hooks/results", "LOWTIDE_WEBHOOK_ALLOW_PRIVATE=true"),
        ({"LOWTIDE_WEBHOOK_ALLOW_HTTP": "false"}, "/hooks/results", "LOWTIDE_WEBHOOK_ALLOW_HTTP=true"),
        ({}, "/admin", "name it in LOWTIDE_WEBHOOK_SECRETS"),
        ({"LOWTIDE_WEBHOOK_SECRETS": ""}, "/hooks/results", "name it in LOWTIDE_WEBHOOK_SECRETS"),
    ],
    ids=["private address", "plain http", "outside the root", "nothing configured"],
)
def test_what_is_not_allowed_is_never_called_and_parked_in_the_end(
    bare_stack: Stack, changes: dict[str, str], path: str, reason: str
) -> None:
    with Receiver() as shop:
        worker = bare_stack.worker(LOWTIDE_MAX_DELIVERY_ATTEMPTS="2", **shop.env(**changes))

        batch = submit(bare_stack, shop.url.removesuffix("/hooks/") + path)

        wait_until(lambda: batch.status().parked == 1, what="the segment is parked")
    assert batch.status().undelivered == 0
    assert not shop.hooks
    assert not shop.refused
    assert reason in worker.text


def test_the_secret_appears_nowhere_even_if_the_service_shows_it(bare_stack: Stack) -> None:
    key = SECRET.removeprefix("whsec_")
    seen: list[str] = []
    looked = threading.Event()

    def answers(number: int) -> Answer:
        if number == 1:
            return Answer(500, f"settings: {SECRET} {key}".encode())
        looked.wait(60)
        return Answer()

    with Receiver(answers) as shop:
        bare_stack.worker("-c", "2", "-l", "debug", **shop.env(LOWTIDE_WEBHOOK_TIMEOUT_SECONDS="60"))
        batch = submit(bare_stack, f"{shop.url}results")

        def failure_is_kept() -> bool:
            seen.extend(redis_text(bare_stack))
            return any("answered 500" in text for text in seen)

        wait_until(failure_is_kept, what="Redis keeps the reason of the failure")
        looked.set()
        wait_until(lambda: batch.status().undelivered == 0, what="everything is delivered")
        seen.extend(redis_text(bare_stack))
        seen.append(repr(batch.status()))
    assert "answered 500: settings: *** ***" in bare_stack.logs()
    assert key not in bare_stack.logs()
    assert not [text for text in seen if key in text]


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https:///hooks",
        "https://user:pw@shop.example/",
        "https://shop.example/#x",
        "https://shop.example:0/",
        "https://shop.example:70000/",
        "https://shop.example/a\nb",
        "ftp://shop.example/",
        "stream://",
        "stream://a b",
        "stream://" + "x" * 101,
    ],
)
def test_a_malformed_handler_is_refused_at_submit(bare_stack: Stack, url: str) -> None:
    with pytest.raises(InvalidBatch) as caught:
        bare_stack.queue().submit([Request(key="a", contents="x")], model=MODEL, on_result=url, labels=LABELS)

    assert "on_result" in str(caught.value)
    assert "pw" not in str(caught.value)
    assert not Counter(bare_stack.redis.scan_iter(match="lowtide:batch:*"))
