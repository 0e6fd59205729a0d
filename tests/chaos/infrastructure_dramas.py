"""What can happen to processes, Redis and the spool, a drama each; the name says what happens."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from tests.chaos.fault_dramas import rule
from tests.chaos.invariants import Allowed, Figures, check
from tests.chaos.world import ForgedWorker, Submitted, World, within

PREFORK = ("-P", "prefork", "-c", "2")
THREADS = ("-P", "threads", "-c", "4")
SOLO = ("-P", "solo")
_SWEEP = {"LOWTIDE_SWEEP_SECONDS": "0.5"}


def crowd(world: World) -> list[Submitted]:
    """Three batches: by file, inline, and one with results that its handler refuses at first."""
    return [
        world.submit(8, marks={1: "[[error:8:1]]"}),
        world.submit(6, mode="inline"),
        world.submit(5, flaky=True),
    ]


def end(
    world: World, crowd: Sequence[Submitted], allowed: Allowed | None = None, kills: int = 0, restarts: int = 0
) -> Figures:
    """Waits for the end with a worker that sweeps, and checks everything."""
    world.release_sweep()
    world.rest(crowd, timeout=40)
    return check(world, crowd, allowed) + Figures(kills=kills, restarts=restarts)


def sweeping(world: World, *options: str, **env: str) -> ForgedWorker:
    """A worker that sweeps often."""
    return world.worker(*options, **(_SWEEP | env))


# Processes


def whole_workers_are_killed_again_and_again(world: World) -> Figures:
    batches = crowd(world)
    for _ in range(5):
        worker = sweeping(world, *PREFORK)
        calls = sum(world.emulator.stats().calls.values())
        within(10, "work goes on", lambda: sum(world.emulator.stats().calls.values()) > calls + 4)  # noqa: B023 - now
        worker.kill()
    sweeping(world, *PREFORK)
    return end(world, batches, kills=5)


def children_are_killed_under_a_living_parent(world: World) -> Figures:
    batches = crowd(world)
    worker = sweeping(world, *PREFORK)
    chance = random.Random(1)
    kills = 0
    for _ in range(8):
        calls = sum(world.emulator.stats().calls.values())
        within(15, "work goes on", lambda: sum(world.emulator.stats().calls.values()) > calls + 2)  # noqa: B023 - now
        if children := worker.children():
            os.kill(chance.choice(children), signal.SIGKILL)
            kills += 1
        if all(one.batch.status().finished for one in batches):
            break
    figures = end(world, batches, kills=kills)
    assert worker.alive
    return figures


def every_child_dies_at(point: str, world: World) -> Figures:
    """The parent forks a new child, which dies at the same place, until a better worker comes."""
    one = world.submit(8, marks={1: "[[error:8:1]]"}, flaky=True)
    worker = sweeping(world, *PREFORK, LOWTIDE_CRASH_AT=point)
    within(20, "a child dies", lambda: "exited prematurely" in worker.text or "SIGKILL" in worker.text)
    assert worker.alive, worker.text
    worker.kill()
    sweeping(world, *PREFORK)
    return end(world, [one], kills=1)


def one_of_two_workers_is_stopped_warmly(pool: Sequence[str], world: World) -> Figures:
    world.emulator.set_faults([rule("batches.create", "delay", times=3, seconds=0.7)])
    batches = crowd(world)
    first = sweeping(world, *pool)
    within(10, "work goes on", lambda: world.emulator.stats().calls.get("batches.create"))
    sweeping(world, *pool)
    assert first.stop(timeout=15) == 0, first.text
    return end(world, batches)


def a_worker_is_frozen_longer_than_its_lease(call: str, world: World) -> Figures:
    """Another takes over; the frozen one thaws with its work long done by others, and changes nothing.

    One thing cannot be taken back: frozen just before its create call, it makes that call when it thaws. The twin is
    found and removed.
    """
    world.emulator.set_faults([rule(call, "delay", times=1, seconds=0.5)])
    batches = crowd(world)
    frozen = sweeping(world, *THREADS)
    within(10, "the call", lambda: world.emulator.stats().calls.get(call))
    os.kill(frozen.forged.pid, signal.SIGSTOP)
    sweeping(world, *THREADS)
    within(30, "the other has done its work", lambda: all(one.batch.status().finished for one in batches))
    os.kill(frozen.forged.pid, signal.SIGCONT)
    figures = end(world, batches, Allowed(twins=2, billed_again=8) if call == "batches.create" else None)
    assert frozen.alive, frozen.text
    return figures


# Redis


def redis_is_killed_while(call: str, world: World) -> Figures:
    """With a call to the provider under way, so that a message is unacknowledged."""
    world.emulator.set_faults([rule(call, "delay", times=2, seconds=1)])
    batches = crowd(world)
    worker = sweeping(world, *THREADS)
    within(15, "the call", lambda: world.emulator.stats().calls.get(call))
    world.redis_server.kill()
    world.redis_server.start()
    figures = end(world, batches, restarts=1)
    assert worker.alive, worker.text
    return figures


def redis_is_killed_while_segments_are_delivered(world: World) -> Figures:
    one = world.submit(40)
    results = world.directory / "spool" / "batches" / one.id / "results"
    worker = sweeping(world, *PREFORK, LOWTIDE_SEGMENT_ROWS="1")
    within(15, "some results", lambda: results.exists() and len(list(results.iterdir())) > 3)
    world.redis_server.kill()
    world.redis_server.start()
    figures = end(world, [one], restarts=1)
    assert worker.alive, worker.text
    return figures


def redis_is_away_for_a_while(world: World) -> Figures:
    batches = crowd(world)
    worker = sweeping(world, *PREFORK)
    within(10, "work goes on", lambda: world.emulator.stats().calls.get("batches.create"))
    world.redis_server.kill()
    time.sleep(4)  # an outage takes its time
    world.redis_server.start()
    figures = end(world, batches, restarts=1)
    assert worker.alive, worker.text
    return figures


def redis_is_frozen_for_a_while(world: World) -> Figures:
    """No connection breaks and nothing answers: longer than the workers' patience."""
    batches = crowd(world)
    worker = sweeping(world, *THREADS, LOWTIDE_REDIS_TIMEOUT_SECONDS="1")
    within(10, "work goes on", lambda: world.emulator.stats().calls.get("batches.create"))
    pid = world.redis_server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    time.sleep(3)  # three times the patience
    os.kill(pid, signal.SIGCONT)
    figures = end(world, batches)
    assert worker.alive, worker.text
    return figures


def connections_are_cut(world: World) -> Figures:
    batches = crowd(world)
    workers = [sweeping(world, *PREFORK), sweeping(world, *THREADS)]
    cuts = 0
    while cuts < 60 and not all(one.batch.status().finished for one in batches):
        world.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        cuts += 1
        time.sleep(0.05)  # the cuts are the clock of this test
    assert cuts > 3
    figures = end(world, batches)
    assert all(worker.alive for worker in workers)
    return figures


@contextmanager
def _config(world: World, **values: str) -> Iterator[None]:
    before = {name: str(world.redis.config_get(name)[name]) for name in values}
    for name, value in values.items():
        world.redis.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            world.redis.config_set(name, value)


def redis_is_busy_with_a_slow_script(world: World) -> Figures:
    batches = crowd(world)
    worker = sweeping(world, *THREADS)
    within(10, "work goes on", lambda: world.emulator.stats().calls.get("files.upload.start"))
    slow = "local e = redis.call('TIME')[1] + 3; while redis.call('TIME')[1] + 0 < e do end; return 1"
    with _config(world, **{"busy-reply-threshold": "50"}):
        # A script that writes can only be waited for; this one only reads, but nobody kills it.
        world.redis.eval(slow, 0)
    figures = end(world, batches)
    assert worker.alive, worker.text
    return figures


def redis_is_full_for_a_while(world: World) -> Figures:
    batches = crowd(world)
    worker = sweeping(world, *THREADS)
    within(10, "work goes on", lambda: world.emulator.stats().calls.get("batches.create"))
    with _config(world, maxmemory="1"):
        within(10, "the worker is refused", lambda: "maxmemory" in worker.text)
        time.sleep(1.5)  # it stays full
    figures = end(world, batches)
    assert worker.alive, worker.text
    return figures


def redis_only_reads_for_a_while(world: World) -> Figures:
    """As after a failover that nobody was told of."""
    batches = crowd(world)
    worker = sweeping(world, *THREADS)
    within(10, "work goes on", lambda: world.emulator.stats().calls.get("batches.create"))
    world.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        within(10, "the worker is refused", lambda: "read only" in worker.text.lower())
        time.sleep(1.5)  # it stays so
    finally:
        world.redis.execute_command("REPLICAOF", "NO", "ONE")
    figures = end(world, batches)
    assert worker.alive, worker.text
    return figures


class _Tail:
    """How long the append-only file was at each moment, and how often somebody waited for it."""

    def __init__(self, world: World) -> None:
        self._folder = world.redis_server.directory / "appendonlydir"
        self._client = world.redis
        self._over = threading.Event()
        self._samples: list[tuple[float, int, int]] = []
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.is_set():
            self._look()
            time.sleep(0.005)

    def _look(self) -> None:
        waits = self._client.info("commandstats").get("cmdstat_waitaof", {}).get("calls", 0)
        size = max(self._folder.glob("*.incr.aof")).stat().st_size
        self._samples.append((time.monotonic(), size, waits))

    def close(self) -> None:
        """The last look. The worker, frozen by now, is cut off first: nobody is told of a wait that ends after it."""
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


def redis_loses_its_last_second_while(what: str, world: World) -> Figures:
    """A power cut: what was not yet flushed to the disk is gone when Redis comes back."""
    world.redis.config_set("appendfsync", "everysec")
    one = world.submit(4)
    tail = _Tail(world)
    worker = sweeping(world, *THREADS)
    moments: dict[str, Callable[[], object]] = {
        "jobs are polled": lambda: world.emulator.stats().calls.get("batches.get"),
        "results are stored": lambda: one.batch.status().succeeded,
        "the batch has just ended": lambda: one.batch.status().finished,
        "a job was just deleted": lambda: any(record.deleted for record in world.emulator.jobs()),
    }
    wanted = moments[what]
    within(15, what, wanted)
    os.kill(worker.forged.pid, signal.SIGSTOP)
    tail.close()
    world.redis_server.kill()
    tail.cut(0.95)
    world.redis_server.start()
    world.hold_sweep()
    os.kill(worker.forged.pid, signal.SIGCONT)
    figures = end(world, [one], restarts=1)
    assert worker.alive, worker.text
    return figures


# Messages


class _Tap:
    """Copies every message that is put on a queue, by MONITOR."""

    def __init__(self, world: World, seen: Callable[[str, str], None]) -> None:
        self._socket = socket.create_connection(("127.0.0.1", world.redis_server.port))
        self._socket.sendall(b"MONITOR\r\n")
        self._seen = seen
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        with self._socket.makefile("rb") as lines:
            try:
                for line in lines:
                    if b'"LPUSH" "' in line:
                        queue, message = line.decode().split('"LPUSH" ', 1)[1].strip().split(" ", 1)
                        self._seen(json.loads(queue), json.loads(message))
            except (OSError, ValueError):
                return

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def every_message_comes_many_times_and_again_when_all_is_over(world: World) -> Figures:
    seen: dict[str, str] = {}
    client = world.redis

    def again(queue: str, message: str) -> None:
        if queue.startswith(("lowtide.", "celery")) and message not in seen:
            seen[message] = queue
            for _ in range(3):
                client.lpush(queue, message)

    tap = _Tap(world, again)
    try:
        batches = crowd(world)
        workers = [sweeping(world, *THREADS), sweeping(world, *PREFORK)]
        world.rest(batches, timeout=60)
    finally:
        tap.close()
    assert len(seen) > 30, "the tap saw nothing"
    messages = [(queue, message) for message, queue in seen.items() for _ in range(2)]
    random.Random(2).shuffle(messages)
    for queue, message in messages:
        client.lpush(queue, message)
    figures = end(world, batches)
    assert all(worker.alive for worker in workers)
    return figures


def messages_come_back_while_their_task_runs(world: World) -> Figures:
    """The shop's visibility timeout is a second, and the shortest of a database counts for all."""
    world.emulator.set_faults([rule("batches.create", "delay", times=3, seconds=1.7)])
    impatient = world.shop(SHOP_VISIBILITY="1")
    batches = crowd(world)
    sweeping(world, *THREADS)
    sweeping(world, *THREADS)
    figures = end(world, batches)
    impatient.kill()
    return figures


# The spool


def the_spool_is_away_for_a_while(world: World) -> Figures:
    batches = crowd(world)
    worker = sweeping(world, *THREADS)
    within(10, "work goes on", lambda: world.emulator.stats().calls.get("batches.create"))
    spool = world.directory / "spool"
    spool.rename(spool.with_name("away"))
    spool.touch()
    try:
        within(15, "the worker notices", lambda: "SpoolError" in worker.text)
        time.sleep(1)  # it stays away
    finally:
        spool.unlink()
        spool.with_name("away").rename(spool)
    figures = end(world, batches)
    assert worker.alive, worker.text
    return figures


def the_spool_is_full_for_a_while(world: World) -> Figures:
    """Files longer than 150 bytes cannot be written, as on a disk without room."""
    batches = crowd(world)
    worker = sweeping(world, *THREADS)
    pid = worker.forged.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (150, before[1]))
    try:
        within(15, "jobs that could not be collected", lambda: _failures(world) > 2)
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    figures = end(world, batches)
    assert worker.alive, worker.text
    return figures


def _failures(world: World) -> int:
    return sum(int(world.redis.hget(key, "failures") or 0) for key in world.redis.scan_iter("lowtide:job:*"))


def the_disk_of_the_spool_is_full_for_a_while(world: World) -> Figures:
    """A file system of its own, filled up; where nobody may mount one, the file of `the_spool_is_full` must do."""
    spool = world.directory / "spool"
    spool.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "chaos", str(spool)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        return the_spool_is_full_for_a_while(world)
    try:
        batches = crowd(world)
        ballast = spool / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        worker = sweeping(world, *THREADS)
        within(15, "the worker notices", lambda: "No space left" in worker.text)
        ballast.unlink()
        figures = end(world, batches)
        assert worker.alive, worker.text
        world.clear_stage()
    finally:
        subprocess.run(["umount", "-l", str(spool)], check=False)
    return figures


DRAMAS: dict[str, Callable[[World], Figures]] = {
    "whole workers are killed again and again": whole_workers_are_killed_again_and_again,
    "children are killed under a living parent": children_are_killed_under_a_living_parent,
    "every child dies before the create call": partial(every_child_dies_at, "create.before-call"),
    "every child dies after the create call": partial(every_child_dies_at, "create.after-call"),
    "every child dies between grant and record": partial(every_child_dies_at, "deliver.before-record"),
    "every child dies after it handed over": partial(every_child_dies_at, "deliver.after-hand-over"),
    "one of two workers is stopped warmly (threads)": partial(one_of_two_workers_is_stopped_warmly, THREADS),
    "one of two workers is stopped warmly (prefork)": partial(one_of_two_workers_is_stopped_warmly, PREFORK),
    "a worker is frozen in a create": partial(a_worker_is_frozen_longer_than_its_lease, "batches.create"),
    "a worker is frozen in a download": partial(a_worker_is_frozen_longer_than_its_lease, "files.download"),
    "a worker is frozen in an upload": partial(a_worker_is_frozen_longer_than_its_lease, "files.upload.chunk"),
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
    "every message comes many times": every_message_comes_many_times_and_again_when_all_is_over,
    "messages come back while their task runs": messages_come_back_while_their_task_runs,
    "the spool is away for a while": the_spool_is_away_for_a_while,
    "files cannot grow for a while": the_spool_is_full_for_a_while,
    "the disk of the spool is full for a while": the_disk_of_the_spool_is_full_for_a_while,
}
