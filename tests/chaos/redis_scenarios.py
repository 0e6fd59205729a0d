"""Faults of Redis, a scenario each; the name says what happens."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from tests.chaos.chaos_stack import ChaosStack
from tests.chaos.faults import rule
from tests.chaos.invariants import Figures
from tests.chaos.producers import PREFORK, THREADS, at_work, end, submit_three, sweeping
from tests.waiting import wait_until


def redis_is_killed_while(call: str, stack: ChaosStack) -> Figures:
    """With a call to the provider under way, so that a message is unacknowledged."""
    stack.emulator.set_faults([rule(call, "delay", times=2, seconds=1)])
    batches = submit_three(stack)
    worker = sweeping(stack, *THREADS)
    wait_until(lambda: stack.emulator.stats().calls.get(call), what="the call")
    stack.redis_server.kill()
    stack.redis_server.start()
    return end(stack, batches, restarts=1, alive=[worker])


def redis_is_killed_while_segments_are_delivered(stack: ChaosStack) -> Figures:
    one = stack.submit(40)
    results = stack.directory / "spool" / "batches" / one.id / "results"
    worker = sweeping(stack, *PREFORK, LOWTIDE_SEGMENT_ROWS="1")
    wait_until(lambda: results.exists() and len(list(results.iterdir())) > 3, what="some results")
    stack.redis_server.kill()
    stack.redis_server.start()
    return end(stack, [one], restarts=1, alive=[worker])


def redis_is_away_for_a_while(stack: ChaosStack) -> Figures:
    with at_work(stack, *PREFORK) as (batches, worker):
        stack.redis_server.kill()
    wait_until(lambda: worker.text.count("Cannot connect") > 1, what="the worker tries again in vain")
    stack.redis_server.start()
    return end(stack, batches, restarts=1, alive=[worker])


def redis_is_frozen_for_a_while(stack: ChaosStack) -> Figures:
    """No connection breaks and nothing answers: longer than the workers' patience."""
    with at_work(stack, *THREADS, LOWTIDE_REDIS_TIMEOUT_SECONDS="1") as (batches, worker):
        pid = stack.redis_server.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: worker.text.count("Timeout") > 2, what="the worker's patience is over", timeout=180)
    os.kill(pid, signal.SIGCONT)
    return end(stack, batches, alive=[worker])


def connections_are_cut(stack: ChaosStack) -> Figures:
    with stack.held_jobs():
        batches = submit_three(stack)
        workers = [sweeping(stack, *PREFORK), sweeping(stack, *THREADS)]
        for _ in range(10):
            _cut(stack)
    for _ in range(50):
        if all(one.batch.status().finished for one in batches):
            break
        _cut(stack)
    return end(stack, batches, alive=workers)


def _cut(stack: ChaosStack) -> None:
    stack.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    wait_until(lambda: len(stack.redis.client_list(_type="normal")) > 1, what="a client connects again")


@contextmanager
def _config(stack: ChaosStack, **values: str) -> Iterator[None]:
    before = {name: str(stack.redis.config_get(name)[name]) for name in values}
    for name, value in values.items():
        stack.redis.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            stack.redis.config_set(name, value)


def redis_is_busy_with_a_slow_script(stack: ChaosStack) -> Figures:
    slow = "local e = redis.call('TIME')[1] + 3; while redis.call('TIME')[1] + 0 < e do end; return 1"
    with at_work(stack, *THREADS) as (batches, worker), _config(stack, **{"busy-reply-threshold": "50"}):
        # A script that writes can only be waited for; this one only reads, but no client kills it.
        stack.redis.eval(slow, 0)
    return end(stack, batches, alive=[worker])


def redis_is_full_for_a_while(stack: ChaosStack) -> Figures:
    with at_work(stack, *THREADS) as (batches, worker), _config(stack, maxmemory="1"):
        wait_until(lambda: worker.text.count("maxmemory") > 2, what="the worker is refused")
    return end(stack, batches, alive=[worker])


def redis_only_reads_for_a_while(stack: ChaosStack) -> Figures:
    """As after a failover that no client knows of."""
    with at_work(stack, *THREADS) as (batches, worker):
        stack.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        wait_until(lambda: worker.text.lower().count("read only") > 2, what="the worker is refused")
    finally:
        stack.redis.execute_command("REPLICAOF", "NO", "ONE")
    return end(stack, batches, alive=[worker])


class _Tail:
    """Records the length of the append-only file at each moment, and how often a client waited for it."""

    def __init__(self, stack: ChaosStack) -> None:
        self._folder = stack.redis_server.directory / "appendonlydir"
        self._client = stack.redis
        self._over = threading.Event()
        self._samples: list[tuple[float, int, int]] = []
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self._look()

    def _look(self) -> None:
        waits = self._client.info("commandstats").get("cmdstat_waitaof", {}).get("calls", 0)
        size = max(self._folder.glob("*.incr.aof")).stat().st_size
        self._samples.append((time.monotonic(), size, waits))

    def close(self) -> None:
        """The last look. The worker, frozen by now, is cut off first: it must not learn of a wait that ends later."""
        self._over.set()
        self._thread.join()
        self._client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        self._look()

    def cut(self, seconds: float) -> int:
        """Cuts off what a power cut might: the last `seconds`, but nothing that was waited for."""
        path = max(self._folder.glob("*.incr.aof"))
        last = self._samples[-1]
        fair = [s for s in self._samples if s[0] >= last[0] - seconds and s[2] == last[2]]
        size = path.stat().st_size
        # One sample later than the first: the wait itself was over by then.
        os.truncate(path, fair[min(1, len(fair) - 1)][1])
        return size - path.stat().st_size


def redis_loses_its_last_second_while(what: str, stack: ChaosStack) -> Figures:
    """A power cut: what was not yet flushed to the disk is gone when Redis comes back."""
    stack.redis.config_set("appendfsync", "everysec")
    one = stack.submit(4)
    tail = _Tail(stack)
    worker = sweeping(stack, *THREADS)
    moments: dict[str, Callable[[], object]] = {
        "jobs are polled": lambda: stack.emulator.stats().calls.get("batches.get"),
        "results are stored": lambda: one.batch.status().succeeded,
        "the batch has just ended": lambda: one.batch.status().finished,
        "a job was just deleted": lambda: any(record.deleted for record in stack.emulator.jobs()),
    }
    wanted = moments[what]
    wait_until(wanted, what=what)
    os.kill(worker.pid, signal.SIGSTOP)
    tail.close()
    stack.redis_server.kill()
    tail.cut(0.95)
    stack.redis_server.start()
    stack.hold_sweep()
    os.kill(worker.pid, signal.SIGCONT)
    return end(stack, [one], restarts=1, alive=[worker])


SCENARIOS: dict[str, Callable[[ChaosStack], Figures]] = {
    "Redis is killed while jobs are created": partial(redis_is_killed_while, "batches.create"),
    "Redis is killed while jobs are polled": partial(redis_is_killed_while, "batches.get"),
    "Redis is killed while output is fetched": partial(redis_is_killed_while, "files.download"),
    "Redis is killed while segments are delivered": redis_is_killed_while_segments_are_delivered,
    "Redis is away for a while": redis_is_away_for_a_while,
    "Redis is frozen for a while": redis_is_frozen_for_a_while,
    "connections to Redis are cut": connections_are_cut,
    "Redis is busy with a slow script": redis_is_busy_with_a_slow_script,
    "Redis is full for a while": redis_is_full_for_a_while,
    "Redis only reads for a while": redis_only_reads_for_a_while,
    "Redis loses its last second while jobs are polled": partial(redis_loses_its_last_second_while, "jobs are polled"),
    "Redis loses its last second when results are stored": partial(
        redis_loses_its_last_second_while, "results are stored"
    ),
    "Redis loses its last second when the batch has ended": partial(
        redis_loses_its_last_second_while, "the batch has just ended"
    ),
    "Redis loses its last second when a job was deleted": partial(
        redis_loses_its_last_second_while, "a job was just deleted"
    ),
}
