"""Whatever lies on the queues, and beside them: workers live on, and account for every message."""

from __future__ import annotations

import json
import random
import re

import pytest
from tests.hostile import messages
from tests.stack import Stack, Worker
from tests.waiting import wait_until

from lowtide import DeadLetters, Request
from lowtide.protocol import Queue, keys

MODEL = "gemini-3.5-flash"
RECEIVED = re.compile(r"Task (\S+)\[([^\]]*)\] received")
ENDED = re.compile(r"Task (\S+)\[([^\]]*)\] succeeded")
OWN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SEED = 20261126


def assert_serves(stack: Stack, worker: Worker) -> None:
    assert worker.alive, worker.text[-5000:]
    batch = stack.queue().submit([Request(key="a", contents="x")], model=MODEL)
    assert batch.wait(timeout=180).succeeded == 1


def hostile_ids(pattern: re.Pattern[str], text: str) -> list[str]:
    return [task_id for _, task_id in pattern.findall(text) if not OWN_ID.fullmatch(task_id)]


@pytest.mark.parametrize(
    ("pool", "count"), [(("-c", "2"), 500), (("-P", "threads", "-c", "4"), 500), (("-P", "solo"), 500)]
)
def test_every_message_ends_as_a_dead_letter_or_runs_and_the_worker_lives_on(
    bare_stack: Stack, pool: tuple[str, ...], count: int
) -> None:
    stack, client = bare_stack, bare_stack.redis
    worker = stack.worker(*pool, "-l", "debug")
    batch = stack.queue().submit([Request(key="a", contents="x")], model=MODEL)
    batch.wait(timeout=180)
    seed = SEED + len(pool)
    priorities = ["", "", "", "\x06\x163", "\x06\x169"]
    chance = random.Random(seed)
    with client.pipeline(transaction=False) as pipe:
        for queue, message in messages(seed, count, batch.id):
            pipe.lpush(f"{queue}{chance.choice(priorities)}", message)
        pipe.execute()

    def letters() -> list[dict[str, object]]:
        return [json.loads(raw) for raw in client.lrange("lowtide:dead-letters", 0, -1)]

    lists = [f"{queue}{priority}" for queue in Queue for priority in set(priorities)]
    wait_until(
        lambda: not client.exists(keys.UNACKED, *lists) or not worker.alive, timeout=180, what=f"an end, seed {seed}"
    )
    assert_serves(stack, worker)
    wait_until(
        lambda: len(hostile_ids(ENDED, worker.text)) == len(hostile_ids(RECEIVED, worker.text)),
        what=f"an end of all that runs, seed {seed}",
    )
    refused = sum("queue" in letter for letter in letters())
    assert refused + len(hostile_ids(RECEIVED, worker.text)) == count, f"seed {seed}"
    assert all(letter["reason"] and len(str(letter["reason"])) <= 500 for letter in letters())
    assert max(map(len, client.lrange("lowtide:dead-letters", 0, -1))) < 20_000
    assert len(DeadLetters(stack.settings()).list(limit=10_000)) == client.llen("lowtide:dead-letters")
    assert len(hostile_ids(RECEIVED, worker.text)) > count / 20, "next to nothing got through; the mutator is too wild"


def test_control_messages_of_any_kind_leave_the_worker_alive(bare_stack: Stack) -> None:
    worker = bare_stack.worker("-P", "threads", "-c", "2")
    topics = ["/0.celery.pidbox", "/0.celeryev/worker.heartbeat", "/0.celeryev/worker.x"]
    for _, message in messages(SEED, 100, "b0nobody"):
        for topic in topics:
            bare_stack.redis.publish(topic, message)

    assert_serves(bare_stack, worker)


def test_what_was_never_acknowledged_is_restored_past_what_cannot_be(bare_stack: Stack) -> None:
    client = bare_stack.redis
    good = {
        "body": json.dumps([[], {"v": 1, "batch_id": "b0nobody", "token": 0}, {}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": "lowtide.submit", "id": "restored"},
        "properties": {"delivery_tag": "good", "delivery_info": {}},
    }
    odd = [
        b"\xff",
        b"{",
        b"null",
        b"5",
        b"[]",
        b'["a","b","c"]',
        b'[null,"","lowtide.jobs"]',
        b'[{},"","lowtide.jobs"]',
        b'[{"headers":[],"properties":{}},"","lowtide.jobs"]',
        b"[" * 5000,
        json.dumps([good, ["x"], {}]).encode(),
    ]
    for number, entry in enumerate(odd):
        client.hset(keys.UNACKED, f"odd-{number}", entry)
        client.zadd(keys.UNACKED_INDEX, {f"odd-{number}": number + 2})
    client.hset(keys.UNACKED, "good", json.dumps([good, "", "lowtide.jobs"]))
    client.zadd(keys.UNACKED_INDEX, {"good": 1})  # restored last

    worker = bare_stack.worker("-P", "threads", "-c", "2", "-l", "debug")

    wait_until(lambda: hostile_ids(ENDED, worker.text) == ["restored"], what="the good one")
    wait_until(lambda: not client.exists(keys.UNACKED, keys.UNACKED_INDEX), what="nothing is left")
    reasons = [json.loads(raw)["reason"] for raw in client.lrange("lowtide:dead-letters", 0, -1)]
    assert sum(reason.startswith("cannot be restored") for reason in reasons) == len(odd)
    assert_serves(bare_stack, worker)


@pytest.mark.parametrize("queue", Queue)
def test_keys_of_another_type_are_complained_of_and_the_worker_lives_on(bare_stack: Stack, queue: Queue) -> None:
    bare_stack.redis.set(keys.entity(keys.SWEEP_MEMBER), "a string")
    worker = bare_stack.worker("-P", "threads", "-c", "2")
    before = worker.text.count("WRONGTYPE")
    bare_stack.redis.set(queue, "a string")
    wait_until(lambda: worker.text.count("WRONGTYPE") > before, what="a complaint")
    bare_stack.redis.delete(queue)

    assert_serves(bare_stack, worker)
