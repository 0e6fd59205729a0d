"""Records of an older version are refused and left alone; they hold up no other work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import BatchState, Request
from lowtide.protocol import OLDEST_RECORDS, RECORD_VERSION, Queue, Stage, keys
from lowtide.store import DeliveryClient
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import HeldSweep, NotHeld

MODEL = "gemini-3.5-flash"
OF_THE_CLOCK = (b"token", b"sent", b"busy", b"problem")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path) as stack:
        yield stack


def test_a_batch_of_an_older_version_is_left_alone_and_does_not_block_others(stack: Stack) -> None:
    queue = stack.queue()
    old = queue.submit([Request(key="a", contents="x")], model=MODEL, priority=10)
    stack.redis.hset(keys.batch(old.id), "v", 1)
    before = stack.redis.hgetall(keys.batch(old.id))
    good = queue.submit([Request(key="a", contents="x")], model=MODEL)

    worker = stack.worker("-P", "threads", "-c", "2")

    assert good.wait(timeout=180).succeeded == 1
    wait_until(lambda: old.status().problems, what="its problem is shown")
    status = old.status()
    assert status.state is BatchState.PENDING
    [problem] = status.problems
    assert f"a version before {OLDEST_RECORDS}" in problem
    after = stack.redis.hgetall(keys.batch(old.id))
    assert {name: value for name, value in after.items() if name not in OF_THE_CLOCK} == {
        name: value for name, value in before.items() if name not in OF_THE_CLOCK
    }
    wait_until(lambda: f"batch:{old.id}: {problem}" in worker.text, what="the log has it too")


@pytest.mark.parametrize("version", ["", "x"])
def test_a_sweep_with_a_damaged_version_does_not_keep_workers_from_starting(stack: Stack, version: str) -> None:
    runtime = Runtime(stack.worker_settings())
    runtime.redis.hset(keys.entity(keys.SWEEP_MEMBER), "v", version)

    runtime.clock.start_sweep()

    assert runtime.redis.hget(keys.entity(keys.SWEEP_MEMBER), "v") == str(RECORD_VERSION).encode()


def test_the_sweep_of_an_older_version_goes_on(stack: Stack) -> None:
    runtime = Runtime(stack.worker_settings())
    sweep = keys.entity(keys.SWEEP_MEMBER)
    runtime.clock.start_sweep()
    runtime.redis.hset(sweep, "v", 1)
    [dispatch] = runtime.clock.claim(Queue.JOBS)
    assert runtime.clock.begin(Stage.SWEEP, dispatch.member, dispatch.token) is NotHeld.OLDER

    runtime.clock.start_sweep()

    assert runtime.redis.hget(sweep, "v") == str(RECORD_VERSION).encode()
    assert isinstance(runtime.clock.begin(Stage.SWEEP, dispatch.member, dispatch.token), HeldSweep)


def test_a_segment_that_a_handler_of_an_older_version_gave_back_is_delivered(stack: Stack) -> None:
    worker = stack.worker("-P", "threads", "-c", "2")
    batch = stack.queue().submit([Request(key="a", contents="x")], model=MODEL, on_result="shop.save@shop")
    wait_until(lambda: stack.redis.llen("shop") == 1, what="the handler has its message")
    segment = f"{batch.id}-1:0"
    DeliveryClient(stack.settings()).hand_back(segment, only=None, attempt=1, error="no room")
    stack.redis.hset(keys.entity(f"segment:{segment}"), "v", 1)

    wait_until(lambda: stack.redis.llen("shop") == 2, what="the handler has its second message")
    assert "a version before" not in worker.text


def test_a_finished_batch_of_an_older_version_can_be_deleted(stack: Stack) -> None:
    stack.worker("-P", "threads", "-c", "2")
    batch = stack.queue().submit([Request(key="a", contents="x")], model=MODEL)
    batch.wait(timeout=180)
    stack.redis.hset(keys.batch(batch.id), "v", 1)

    batch.delete()

    wait_until(lambda: not stack.redis.exists(keys.batch(batch.id)), what="the batch is gone")


def test_damaged_fields_that_are_only_shown_stop_no_batch(stack: Stack) -> None:
    queue = stack.queue()
    batch = queue.submit([Request(key="a", contents="x")], model=MODEL)
    damage = {"labels": "{", "error": "{", "quarantined": "x", "bytes": "x"}
    for field, value in damage.items():
        stack.redis.hset(keys.batch(batch.id), field, value)
    stack.worker("-P", "threads", "-c", "2")

    assert batch.wait(timeout=180).succeeded == 1
    batch.delete()
    wait_until(lambda: not stack.redis.exists(keys.batch(batch.id)), what="the batch is gone")
