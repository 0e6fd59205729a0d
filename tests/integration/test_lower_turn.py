"""Work of the lower turn waits while there is other work: the results of cancelled batches, and deletes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.records import a_batch, hash_of
from tests.stack import Stack

from lowtide import Batch
from lowtide.protocol import Queue, Stage, keys
from lowtide_worker.runtime import Runtime

MANY = 40
WINDOW = 20


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Without workers: the test claims what is due."""
    with Stack(tmp_path_factory.mktemp("turns")) as stack:
        yield stack


@pytest.fixture
def runtime(stack: Stack) -> Runtime:
    stack.empty_redis()
    return Runtime(stack.worker_settings(queue_window=WINDOW))


def cancelled(stack: Stack, count: int) -> list[Batch]:
    """Batches that share jobs and are cancelled: each has a job that writes its results."""
    queue = stack.queue(share_jobs=True, linger_seconds=3600)
    batches = queue.submit_many([{"requests": blurbs(2), "model": MODEL} for _ in range(count)])
    for batch in batches:
        batch.cancel()
    return batches


def settles(runtime: Runtime, *, tick: bool = False) -> int:
    return sum(one.stage is Stage.SETTLE for one in runtime.clock.claim(Queue.JOBS, tick=tick))


def wait(runtime: Runtime, queue: Queue, messages: int) -> None:
    """Leaves so many messages in a queue."""
    runtime.redis.delete(queue)
    if messages:
        runtime.redis.rpush(queue, *["{}"] * messages)


def test_a_few_are_taken_where_no_message_waits_and_all_of_them_in_the_end(stack: Stack, runtime: Runtime) -> None:
    cancelled(stack, MANY)

    taken = [settles(runtime) for _ in range(MANY)]
    assert max(taken) < 10
    assert sum(taken) == MANY


@pytest.mark.parametrize("queue", [Queue.JOBS, Queue.RESULTS])
def test_none_is_taken_while_messages_wait_but_some_with_each_tick(
    stack: Stack, runtime: Runtime, queue: Queue
) -> None:
    cancelled(stack, MANY)
    for messages in (WINDOW // 2, WINDOW):
        wait(runtime, queue, messages)
        runtime.redis.delete(keys.ticked(Queue.JOBS))

        assert not settles(runtime)
        assert 0 < settles(runtime, tick=True) < 10


def test_a_queue_that_nobody_reads_gets_no_more_than_a_few_beyond_its_window(stack: Stack, runtime: Runtime) -> None:
    cancelled(stack, MANY)
    wait(runtime, Queue.JOBS, WINDOW + 10)

    assert not settles(runtime, tick=True)


def test_other_work_that_is_due_later_is_taken_first(stack: Stack, runtime: Runtime) -> None:
    cancelled(stack, MANY)
    later = keys.batch_member("b0fresh")
    runtime.redis.hset(keys.entity(later), mapping=hash_of(a_batch("b0fresh", stage=Stage.SUBMIT)))
    runtime.redis.zadd(keys.clock(Queue.JOBS), {later: time.time()})

    stages = {one.member: one.stage for one in runtime.clock.claim(Queue.JOBS)}
    assert later in stages
    assert list(stages.values()).index(Stage.SETTLE) > list(stages).index(later)


def test_a_status_shows_when_a_job_of_the_lower_turn_was_due(stack: Stack) -> None:
    [batch] = cancelled(stack, 1)

    [job] = batch.status().jobs
    assert job.next_at is not None
    assert abs(job.next_at - time.time()) < 600
