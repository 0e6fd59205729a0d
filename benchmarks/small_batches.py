"""Many small batches: with jobs that they share, submitted one by one or in one call, beside a job for each.

`make bench ARGS="small --sizes 1000 10000"` submits so many batches of ten requests from this process, while two worker
processes run, and waits for their ends. A tenth of the first number, with a job each, is enough for a rate to compare
with. A provider job takes a second. Without workers, it measures `submit` one by one with the spool on a disk and in
memory, and how often the disk can write a new file in a new folder durably, which bounds the former.

At its end it says which bars are met. The bars of rates are those of two cores that have nothing else to do.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import redis

from benchmarks.parts import Bar, at_least, at_most
from benchmarks.servers import Bench, Workers
from lowtide import BatchQueue, Request, Settings
from lowtide.protocol import keys
from lowtide_cli.local import EmbeddedRedis

_MODEL = "gemini-3.5-flash"
_REQUESTS = 10
_ENDED = frozenset({b"completed", b"failed", b"expired", b"cancelled"})
_AT_ONCE = 500
_LOOK_SECONDS = 0.1
_FILES = 300
_THREADS = 8
_MEMORY = Path("/dev/shm")


class Figures(NamedTuple):
    """The figures of one run; times in seconds, memory in bytes."""

    batches: int
    submitted: float
    ended: float
    jobs: int
    calls: int
    waiting: int
    """Memory of Redis when all were submitted, less that before the first batch."""
    finished: int
    """The same when all had ended."""
    worker: int
    """Resident memory of the largest process of the workers at the end."""

    @property
    def submits(self) -> float:
        """Submits a second."""
        return self.batches / self.submitted

    @property
    def rate(self) -> float:
        """Batches a second, from the first submit to the last end."""
        return self.batches / self.ended


def _batches(count: int) -> Iterator[list[Request]]:
    for batch in range(count):
        yield [Request(key=f"k{n}", contents=f"Describe article {batch}-{n}.") for n in range(_REQUESTS)]


def _run(folder: Path, count: int, *, share: bool, at_once: bool) -> Figures:
    with Bench(folder, running_seconds=1) as bench, Workers(bench, "lowtide_worker", 2) as workers:
        workers.warm_up()
        before, memory = bench.stats(), _memory(bench.redis())
        settings = Settings(
            _env_file=None, redis_url=bench.redis_server.url, spool_url=bench.spool_url, share_jobs=share
        )
        queue = BatchQueue(settings)
        began = time.perf_counter()
        if at_once:
            batches = queue.submit_many({"requests": requests, "model": _MODEL} for requests in _batches(count))
        else:
            batches = [queue.submit(requests, model=_MODEL) for requests in _batches(count)]
        submitted = time.perf_counter() - began
        waiting = _memory(bench.redis()) - memory
        _wait(bench, [batch.id for batch in batches])
        ended = time.perf_counter() - began
        after = bench.stats()
        calls = {name: after["calls"].get(name, 0) - before["calls"].get(name, 0) for name in after["calls"]}
        processes = [psutil.Process(workers.pid), *psutil.Process(workers.pid).children(recursive=True)]
        return Figures(
            *(count, submitted, ended, calls.get("batches.create", 0), sum(calls.values())),
            *(waiting, _memory(bench.redis()) - memory, max(process.memory_info().rss for process in processes)),
        )


def _memory(client: redis.Redis) -> int:
    info = client.info("memory")
    assert isinstance(info, dict)
    return int(info["used_memory"])


def _wait(bench: Bench, ids: list[str]) -> None:
    """Waits for the ends of batches, with few calls, so that the looking costs the workers little."""
    client, left = bench.redis(), ids
    while left:
        with client.pipeline(transaction=False) as pipe:
            for batch_id in left[:_AT_ONCE]:
                pipe.hget(keys.batch(batch_id), "state")
            states = pipe.execute()
        running = [batch_id for batch_id, state in zip(left, states, strict=False) if state not in _ENDED]
        left = running + left[_AT_ONCE:]
        if running:
            time.sleep(_LOOK_SECONDS)


def _show(name: str, found: Figures) -> None:
    print(
        f"{name}: {found.batches:,} batches of {_REQUESTS}; submit {found.submits:,.0f}/s, "
        f"end to end {found.rate:,.1f}/s; {found.jobs:,} provider jobs, "
        f"{found.calls:,} provider calls; bytes in Redis for each batch: {found.waiting / found.batches:,.0f} when all "
        f"are submitted, {found.finished / found.batches:,.0f} when all have ended; "
        f"largest worker process {found.worker / 2**20:,.0f} MiB",
        flush=True,
    )


def _submits(folder: Path, count: int) -> tuple[float, float]:
    """Submits batches that share jobs, one by one and without workers: how many a second, and bytes of Redis each."""
    with EmbeddedRedis(folder / "redis") as server:
        settings = Settings(_env_file=None, redis_url=server.url, spool_url=str(folder / "spool"), share_jobs=True)
        queue = BatchQueue(settings)
        with _quiet():
            queue.submit([Request(key="k", contents="The first one connects.")], model=_MODEL)
            memory = _memory(redis.Redis.from_url(server.url))
            began = time.perf_counter()
            for requests in _batches(count):
                queue.submit(requests, model=_MODEL)
            rate = count / (time.perf_counter() - began)
            return rate, (_memory(redis.Redis.from_url(server.url)) - memory) / count


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning that no worker runs."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _durable_files(folder: Path, threads: int) -> float:
    """How many small files in new folders the disk takes a second, each with as many syncs as POSIX asks for."""
    folder.mkdir()

    def write(number: int) -> None:
        place = folder / str(number)
        place.mkdir()
        with (place / "file").open("wb") as file:
            file.write(bytes(2048))
            file.flush()
            os.fsync(file.fileno())
        for name in (place, folder):
            descriptor = os.open(name, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, range(_FILES)))
    return _FILES / (time.perf_counter() - began)


def _without_workers(folder: Path, count: int) -> list[Bar]:
    print(f"durable files in new folders: {_durable_files(folder / 'one', 1):,.0f}/s", flush=True)
    many = _durable_files(folder / "many", _THREADS)
    print(f"the same from {_THREADS} threads: {many:,.0f}/s", flush=True)
    on_disk, waiting = _submits(folder / "submits", count)
    print(
        f"submit, one after another, spool on a disk: {on_disk:,.0f}/s; bytes in Redis for each batch, all of them "
        f"waiting for workers: {waiting:,.0f}",
        flush=True,
    )
    if _MEMORY.is_dir():
        with tempfile.TemporaryDirectory(prefix="lowtide-bench-", dir=_MEMORY) as memory:
            print(f"submit, one after another, spool in memory: {_submits(Path(memory), count)[0]:,.0f}/s", flush=True)
    return [
        at_least("submit, one after another", on_disk, 780, "/s"),
        at_most("Redis for a batch that waits for workers", waiting, 2048, "bytes"),
    ]


def _bars(found: Figures) -> list[Bar]:
    count = found.batches
    return [
        at_least(f"{count:,} batches end to end", found.rate, 286, "/s"),
        at_most(f"provider jobs of {count:,} batches", found.jobs, count / 100),
        at_most(f"provider calls of {count:,} batches", found.calls, count / 10),
        at_most("largest worker process", found.worker / 2**20, 200, "MiB"),
        at_most("Redis for a waiting batch", found.waiting / count, 2048, "bytes"),
        at_most("Redis for a finished batch", found.finished / count, 2048, "bytes"),
    ]


def measure(counts: Sequence[int]) -> bool:
    """Runs all for each number of batches, prints the figures and the bars; returns whether all bars are met."""
    print(f"load average before: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as name:
        folder = Path(name)
        (folder / "disk").mkdir()
        bars = _without_workers(folder / "disk", counts[0])
        shared = []
        for count in counts:
            shared.append(_run(folder / "shared", count, share=True, at_once=False))
            _show("shared, one by one", shared[-1])
            _show("shared, in one call", _run(folder / "many", count, share=True, at_once=True))
            bars += _bars(shared[-1])
        alone = _run(folder / "alone", max(1, counts[0] // 10), share=False, at_once=False)
        _show("a job each", alone)
    first, last = shared[0], shared[-1]
    bars.append(at_least("end to end, shared beside a job each", first.rate / alone.rate, 10, "times"))
    if last is not first:
        times = last.batches / first.batches
        bars.append(at_most(f"time of {times:g} times as many batches", last.ended / first.ended, times, "times"))
    print(f"load average after: {os.getloadavg()[0]:.1f}")
    for bar in bars:
        limit = "at least" if bar.at_least else "at most"
        print(f"{'met' if bar.met else 'MISSED'}: {bar.what}: {bar.value:,.1f} {bar.unit} ({limit} {bar.target:,g})")
    return all(bar.met for bar in bars)


if __name__ == "__main__":
    sys.exit(not measure([int(count) for count in sys.argv[1:]] or [1000]))
