"""Results reach a Celery task of the user's own app, by reference and not through the broker."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from tests.shop import save_all, save_blurb
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import DeadLetterNotFound, DeadLetters, Request
from lowtide.protocol import sender

MODEL = "gemini-3.5-flash"
HANDLER = "shop.tasks.save_blurb"
NAMED = f"{HANDLER}@celery"
"""The same where nobody has said yet that it listens."""


def taken(log: Path) -> Counter[str]:
    """How often each key was taken without failing."""
    if not log.exists():
        return Counter()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return Counter(line["key"] for line in lines if not line["failed"])


def shop(stack: Stack, broker: str, log: Path, fails: int = 0) -> None:
    stack.worker("-P", "solo", app="tests.shop", SHOP_BROKER=broker, SHOP_LOG=str(log), SHOP_FAILS=str(fails))


def test_each_result_is_handed_to_the_users_function(bare_stack: Stack) -> None:
    log = bare_stack.directory / "shop.jsonl"
    bare_stack.worker(LOWTIDE_SEGMENT_ROWS="10")
    shop(bare_stack, bare_stack.redis_server.url, log)
    requests = [Request(key=f"sku-{n}", contents=f"Article {n}") for n in range(35)]

    labels = {"team": "shop", "näme": ""}
    batch = bare_stack.queue().submit(requests, model=MODEL, on_result=save_blurb, labels=labels)

    batch.wait(timeout=180)
    wait_until(lambda: len(taken(log)) == 35, what="every result is taken")
    assert set(taken(log).values()) == {1}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all((line["batch"], line["labels"]) == (batch.id, labels) for line in lines)
    assert all((result.batch_id, result.labels) == (batch.id, labels) for result in batch.results())
    assert not log.with_suffix(".failures").exists()
    wait_until(lambda: batch.status().undelivered == 0, what="nothing is undelivered")


def test_the_users_app_may_live_on_another_broker(bare_stack: Stack) -> None:
    log = bare_stack.directory / "shop.jsonl"
    other = bare_stack.redis_server.url.removesuffix("/0") + "/5"
    bare_stack.worker(LOWTIDE_BROKERS=json.dumps({"shop-broker": f"{other}#orders"}))
    bare_stack.worker("-P", "solo", "-Q", "orders", app="tests.shop", SHOP_BROKER=other, SHOP_LOG=str(log))

    batch = bare_stack.queue().submit([Request(key="a", contents="x")], model=MODEL, on_result=f"shop-broker:{HANDLER}")

    batch.wait(timeout=180)
    wait_until(lambda: taken(log) == {"a": 1}, what="the result is taken")


def test_only_the_results_that_failed_come_again(bare_stack: Stack) -> None:
    log = bare_stack.directory / "shop.jsonl"
    bare_stack.worker()
    shop(bare_stack, bare_stack.redis_server.url, log, fails=2)
    requests = [Request(key=key, contents="x") for key in ("solid-1", "flaky-1", "solid-2", "flaky-2")]

    batch = bare_stack.queue().submit(requests, model=MODEL, on_result=HANDLER)

    batch.wait(timeout=180)
    wait_until(lambda: len(taken(log)) == 4, what="every result is taken")
    calls = Counter(json.loads(line)["key"] for line in log.read_text().splitlines())
    assert calls == {"solid-1": 1, "solid-2": 1, "flaky-1": 3, "flaky-2": 3}
    shop_text = bare_stack.workers[-1].text
    assert "in save_blurb\n" in shop_text, "the traceback shows where the user's function failed"
    # One in each of two deliveries of two failures each: thousands of the same would bury the others.
    assert shop_text.count("Traceback") == 2
    failures = log.with_suffix(".failures").read_text().splitlines()
    assert failures == [
        f"ResultsFailed: 2 of {n} results of delivery {batch.id}-1:0 failed in attempt {attempt}: "
        "RuntimeError: the shop is closed"
        for attempt, n in ((1, 4), (2, 2))
    ]


def test_a_list_whose_process_is_killed_comes_again_as_a_whole_and_no_other(bare_stack: Stack) -> None:
    log = bare_stack.directory / "shop.jsonl"
    bare_stack.worker(LOWTIDE_SEGMENT_ROWS="4", LOWTIDE_HANDLER_PATIENCE_SECONDS="60")
    broker = bare_stack.redis_server.url
    bare_stack.worker("-P", "prefork", "-c", "1", app="tests.shop", SHOP_BROKER=broker, SHOP_LOG=str(log))
    keys = ["solid-0", "deadly-1", *(f"solid-{n}" for n in range(2, 8))]

    batch = bare_stack.queue().submit([Request(key=key, contents="x") for key in keys], model=MODEL, on_result=save_all)

    wait_until(lambda: len(taken(log)) == 8, timeout=180, what="every result is taken")
    wait_until(lambda: batch.status().undelivered == 0, what="nothing is undelivered")
    calls = Counter(json.loads(line)["key"] for line in log.read_text().splitlines())
    assert calls == Counter(keys) + Counter(keys[:2])
    assert batch.status().parked == 0


def test_a_list_that_fails_comes_again_as_a_whole(bare_stack: Stack) -> None:
    log = bare_stack.directory / "shop.jsonl"
    bare_stack.worker(LOWTIDE_SEGMENT_ROWS="4")
    shop(bare_stack, bare_stack.redis_server.url, log, fails=1)
    requests = [Request(key=key, contents="x") for key in ("flaky-1", *(f"solid-{n}" for n in range(7)))]

    batch = bare_stack.queue().submit(requests, model=MODEL, on_result=save_all, labels={"team": "shop"})

    wait_until(lambda: taken(log)["flaky-1"], what="the list is taken")
    wait_until(lambda: batch.status().undelivered == 0, what="nothing is undelivered")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    calls = Counter(line["key"] for line in lines)
    # Delivery is at least once: on a slow machine the other list may come again too.
    again = {key for key, count in calls.items() if count >= 2}
    assert "flaky-1" in again
    assert len(again) >= 4
    assert len(calls) == 8
    assert {(line["batch"], *line["labels"].items()) for line in lines} == {(batch.id, ("team", "shop"))}
    shop_text = bare_stack.workers[-1].text
    assert f"of {batch.id}: RuntimeError: the shop is closed for 4" in shop_text
    assert "in save_all\n" in shop_text, "the traceback shows where the user's function failed"
    failure = log.with_suffix(".failures").read_text().splitlines()[0]
    assert failure.startswith("ResultsFailed: all results of delivery")


def test_a_handler_that_never_takes_a_result_is_parked_and_the_batch_still_completes(bare_stack: Stack) -> None:
    log = bare_stack.directory / "shop.jsonl"
    bare_stack.worker(LOWTIDE_MAX_DELIVERY_ATTEMPTS="2")
    shop(bare_stack, bare_stack.redis_server.url, log, fails=1000)

    batch = bare_stack.queue().submit([Request(key="flaky", contents="x")], model=MODEL, on_result=HANDLER)

    assert batch.wait(timeout=180).succeeded == 1
    wait_until(lambda: batch.status().parked == 1, what="the segment is parked")
    assert batch.status().undelivered == 0


def test_a_parked_segment_is_delivered_again_when_asked_to(bare_stack: Stack) -> None:
    log = bare_stack.directory / "shop.jsonl"
    bare_stack.worker(LOWTIDE_MAX_DELIVERY_ATTEMPTS="2")
    shop(bare_stack, bare_stack.redis_server.url, log, fails=2)
    batch = bare_stack.queue().submit([Request(key="flaky", contents="x")], model=MODEL, on_result=HANDLER)
    wait_until(lambda: batch.status().parked == 1, what="the segment is parked")

    letters = DeadLetters(bare_stack.settings())
    [letter] = letters.list()
    assert letter.batch_id == batch.id
    assert "the shop is closed" in letter.reason
    assert letter.detail["handler"] == HANDLER
    letters.redeliver(letter.id)

    wait_until(lambda: taken(log) == {"flaky": 1}, what="the result is taken")
    wait_until(lambda: (batch.status().parked, batch.status().undelivered) == (0, 0), what="nothing is left")
    assert letters.list() == []
    with pytest.raises(DeadLetterNotFound):
        letters.redeliver(letter.id)


def test_a_dropped_segment_is_forgotten_and_its_results_stay(bare_stack: Stack) -> None:
    bare_stack.worker(LOWTIDE_MAX_DELIVERY_ATTEMPTS="1")
    batch = bare_stack.queue().submit([Request(key="a", contents="x")], model=MODEL, on_result=f"nowhere:{HANDLER}")
    wait_until(lambda: batch.status().parked == 1, what="the segment is parked")

    letters = DeadLetters(bare_stack.settings())
    [letter] = letters.list()
    letters.drop(letter.id)

    assert letters.list() == []
    assert batch.status().parked == 0
    assert [result.key for result in batch.results()] == ["a"]


def test_an_unknown_broker_is_retried_and_said_in_the_log(bare_stack: Stack) -> None:
    worker = bare_stack.worker(LOWTIDE_MAX_DELIVERY_ATTEMPTS="2")

    batch = bare_stack.queue().submit([Request(key="a", contents="x")], model=MODEL, on_result=f"nowhere:{HANDLER}")

    batch.wait(timeout=180)
    wait_until(lambda: batch.status().parked == 1, what="the segment is parked")
    assert "name it in LOWTIDE_BROKERS" in worker.text


def test_the_broker_never_carries_a_payload(bare_stack: Stack) -> None:
    secret = "a text that must stay in the spool"
    bare_stack.worker()
    batch = bare_stack.queue().submit([Request(key="a", contents=secret)], model=MODEL, on_result=NAMED)
    batch.wait(timeout=180)

    message: Any = wait_until(lambda: bare_stack.redis.lindex("celery", 0), what="the handler's message")

    body = base64.b64decode(json.loads(message)["body"]).decode()
    assert batch.id in body
    assert secret not in body
    assert len(body) < 1000


def test_a_delivery_that_its_broker_lost_comes_again(bare_stack: Stack) -> None:
    bare_stack.worker(LOWTIDE_HANDLER_PATIENCE_SECONDS="0.5")
    batch = bare_stack.queue().submit([Request(key="a", contents="x")], model=MODEL, on_result=NAMED)
    wait_until(lambda: bare_stack.redis.llen("celery"), what="the delivery is on its way")
    assert bare_stack.redis.rpop("celery")  # popped for a consumer that dies before it has it

    log = bare_stack.directory / "shop.jsonl"
    shop(bare_stack, bare_stack.redis_server.url, log)

    wait_until(lambda: taken(log)["a"] >= 1, what="the result is taken")
    wait_until(lambda: batch.status().undelivered == 0, what="nothing is undelivered")
    assert batch.status().parked == 0


def test_a_slow_handler_is_given_no_more_than_it_can_hold(bare_stack: Stack) -> None:
    bare_stack.worker(LOWTIDE_HANDLER_WINDOW="2", LOWTIDE_SEGMENT_ROWS="1")
    batch = bare_stack.queue().submit(
        [Request(key=f"k{n}", contents="x") for n in range(9)], model=MODEL, on_result=NAMED
    )
    batch.wait(timeout=180)
    queued = f"lowtide:queued:{NAMED}"
    wait_until(lambda: bare_stack.redis.zcard(queued) == 7, what="seven wait in the store")
    assert bare_stack.redis.llen("celery") == 2
    assert batch.status().undelivered == 9

    log = bare_stack.directory / "shop.jsonl"
    shop(bare_stack, bare_stack.redis_server.url, log)

    wait_until(lambda: batch.status().undelivered == 0, what="everything is delivered")
    assert taken(log) == {f"k{n}": 1 for n in range(9)}
    assert not bare_stack.redis.exists(queued, f"lowtide:in-hand:{NAMED}")


def test_a_handler_without_the_package_answers_by_message(bare_stack: Stack) -> None:
    bare_stack.worker()
    batch = bare_stack.queue().submit([Request(key="a", contents="x")], model=MODEL, on_result=NAMED)
    wait_until(lambda: bare_stack.redis.llen("celery"), what="the delivery is on its way")
    message = json.loads(cast("bytes", bare_stack.redis.rpop("celery")))
    delivery = json.loads(base64.b64decode(message["body"]))[1]
    assert batch.status().undelivered == 1

    sender(bare_stack.redis_server.url).send_task(
        "lowtide.taken", kwargs={"v": 1, "delivery_id": delivery["delivery_id"]}, queue="lowtide.jobs"
    )

    wait_until(lambda: batch.status().undelivered == 0, what="the delivery is over")
    assert not bare_stack.redis.exists(f"lowtide:in-hand:{NAMED}")


def test_where_nobody_waits_for_a_word_the_brokers_is_enough(bare_stack: Stack) -> None:
    bare_stack.worker(LOWTIDE_HANDLER_PATIENCE_SECONDS="0")
    batch = bare_stack.queue().submit([Request(key="a", contents="x")], model=MODEL, on_result=NAMED)
    batch.wait(timeout=180)

    wait_until(lambda: batch.status().undelivered == 0, what="nothing is undelivered")
    assert bare_stack.redis.llen("celery") == 1
