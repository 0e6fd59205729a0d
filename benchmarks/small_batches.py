"""Many small batches: with jobs that they share, submitted one by one or in one call, beside a job for each.

`make bench ARGS="small --sizes 1000 10000"` submits so many batches of ten requests from this process, while two worker
processes run, and waits for their ends. A tenth of the first number, with a job each, is enough for a rate to compare
with. A provider job takes a second. It also measures how often the disk can write a new file in a new folder durably,
which bounds `submit` one by one.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.servers import Bench, Workers
from lowtide import BatchQueue, Request, Settings
from lowtide.protocol import keys

_MODEL = "gemini-3.5-flash"
_REQUESTS = 10
_ENDED = frozenset({b"completed", b"failed", b"expired", b"cancelled"})
_AT_ONCE = 500
_LOOK_SECONDS = 0.1
_FILES = 300


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


def _batches(count: int) -> Iterator[list[Request]]:
    for batch in range(count):
        yield [Request(key=f"k{n}", contents=f"Describe article {batch}-{n}.") for n in range(_REQUESTS)]


def _run(folder: Path, count: int, *, share: bool, at_once: bool) -> Figures:
    with Bench(folder, running_seconds=1) as bench, Workers(bench, "lowtide_worker", 2) as workers:
        workers.warm_up()
        before, memory = bench.stats(), _memory(bench)
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
        waiting = _memory(bench) - memory
        _wait(bench, [batch.id for batch in batches])
        ended = time.perf_counter() - began
        after = bench.stats()
        calls = {name: after["calls"].get(name, 0) - before["calls"].get(name, 0) for name in after["calls"]}
        processes = [psutil.Process(workers.pid), *psutil.Process(workers.pid).children(recursive=True)]
        return Figures(
            *(count, submitted, ended, calls.get("batches.create", 0), sum(calls.values())),
            *(waiting, _memory(bench) - memory, max(process.memory_info().rss for process in processes)),
        )


def _memory(bench: Bench) -> int:
    info = bench.redis().info("memory")
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
        f"{name}: {found.batches:,} batches of {_REQUESTS}; submit {found.batches / found.submitted:,.0f}/s, "
        f"end to end {found.batches / found.ended:,.1f}/s; {found.jobs:,} provider jobs, "
        f"{found.calls:,} provider calls; bytes in Redis for each batch: {found.waiting / found.batches:,.0f} when all "
        f"are submitted, {found.finished / found.batches:,.0f} when all have ended; "
        f"largest worker process {found.worker / 2**20:,.0f} MiB",
        flush=True,
    )


def _durable_files(folder: Path) -> float:
    """How many small files in new folders the disk takes a second, each with as many syncs as POSIX asks for."""
    folder.mkdir()
    began = time.perf_counter()
    for number in range(_FILES):
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
    return _FILES / (time.perf_counter() - began)


def measure(counts: Sequence[int]) -> None:
    """Runs all for each number of batches, and prints the figures."""
    print(f"load average before: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as name:
        folder = Path(name)
        print(f"durable files in new folders: {_durable_files(folder / 'disk'):,.0f}/s", flush=True)
        for count in counts:
            shared = _run(folder / "shared", count, share=True, at_once=False)
            _show("shared, one by one", shared)
            _show("shared, in one call", _run(folder / "many", count, share=True, at_once=True))
        alone = _run(folder / "alone", max(1, counts[0] // 10), share=False, at_once=False)
        _show("a job each", alone)
    rates = [found.batches / found.ended for found in (shared, alone)]
    print(f"end to end, shared beside a job each: {rates[0] / rates[1]:.1f} times as many batches a second")


if __name__ == "__main__":
    measure([int(count) for count in sys.argv[1:]] or [1000])
