"""Redis goes away and comes back, with its append-only file: workers live on and the work is finished."""

from __future__ import annotations

import kombu.utils.functional
import pytest
import redis
from kombu.exceptions import OperationalError
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import JobState, Request, StoreUnavailable
from lowtide.protocol import Queue, Stage, keys
from lowtide_worker.host import application, ticker
from lowtide_worker.state import Dispatch

MODEL = "gemini-3.5-flash"


def requests(count: int) -> list[Request]:
    return [Request(key=f"k{n}", contents=f"Number {n}") for n in range(count)]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_holds_a_message_survives_a_redis_restart(bare_stack: Stack, pool: str) -> None:
    # A create call that takes its time, so that a message is unacknowledged when the server dies.
    bare_stack.emulator.set_faults([{"on": "batches.create", "kind": "delay", "params": {"seconds": 3}, "times": 1}])
    worker = bare_stack.worker("-P", pool, "-c", "2")
    batch = bare_stack.queue().submit(requests(5), model=MODEL)
    wait_until(lambda: any(j.state is JobState.CREATING for j in batch.status().jobs), what="create is under way")

    bare_stack.redis_server.kill()
    wait_until(lambda: "Connection to broker lost" in worker.text, what="the worker notices")
    bare_stack.redis_server.start()

    assert batch.wait(timeout=180).succeeded == 5
    assert worker.alive, worker.text
    assert len([job for job in bare_stack.emulator.jobs() if not job.deleted or job.requests]) == 1


def test_what_was_recorded_before_the_restart_is_finished_after_it(bare_stack: Stack) -> None:
    bare_stack.emulator.set_faults([{"on": "job", "kind": "stuck_running", "times": 3}])
    bare_stack.worker()
    queue = bare_stack.queue()
    batches = [queue.submit(requests(5), model=MODEL) for _ in range(3)]
    wait_until(
        lambda: all(any(j.state is JobState.RUNNING for j in b.status().jobs) for b in batches), what="all jobs run"
    )

    bare_stack.redis_server.kill()
    bare_stack.redis_server.start()
    for batch in batches:
        batch.cancel()

    for batch in batches:
        assert batch.wait(timeout=180).cancelled == 5


def test_a_producer_gets_one_clear_error_and_may_submit_again(bare_stack: Stack) -> None:
    queue = bare_stack.queue()
    bare_stack.redis_server.kill()

    with pytest.raises(StoreUnavailable, match="not reachable"):
        queue.submit(requests(3), model=MODEL, idempotency_key="again")
    assert not list((bare_stack.directory / "spool").rglob("*.jsonl"))

    bare_stack.redis_server.start()
    bare_stack.worker()
    assert queue.submit(requests(3), model=MODEL, idempotency_key="again").wait(timeout=180).succeeded == 3


def test_what_is_due_is_sent_without_a_wait_for_a_redis_that_is_away_and_goes_with_the_next(
    bare_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop sends it, so nothing else would happen in the worker."""

    def no_pause(seconds: float) -> None:
        pytest.fail(f"it waits for {seconds} s")

    monkeypatch.setattr(application, "_settings", bare_stack.worker_settings)
    monkeypatch.setattr(kombu.utils.functional, "sleep", no_pause)
    monkeypatch.setattr(ticker, "_unsent", type(ticker._unsent)())
    never_connected, connected = application.build(), application.build()
    messages = [Dispatch(keys.batch_member(f"b0{name}"), Stage.SUBMIT, 1) for name in ("one", "two")]
    # On the other queue, as the server may forget it.
    ticker.send(connected, [Dispatch(keys.segment_member("b0one-1", 0), Stage.DELIVER, 1)])
    bare_stack.redis_server.kill()

    for app, message in zip((never_connected, connected), messages, strict=True):
        with pytest.raises((redis.RedisError, OperationalError, OSError)):
            ticker.send(app, [message])
    bare_stack.redis_server.start()
    ticker.send(connected)

    assert bare_stack.redis.llen(Queue.JOBS) == 2
    assert not ticker._unsent
