"""Singles: the speed of `add` and `add_many`, the time of one call, and the memory of a single that waits.

`make bench ARGS="singles --sizes 10000"` adds so many requests one by one from this process, and ten times as many in
calls of `add_many`, while two worker processes run, and waits until all have their results. Then it adds as many as at
first to a lane that waits for an hour, to see what they take in Redis. At last a process awaits 10,000 tickets in one
event loop, and another process a single ticket.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.servers import ROOT, Bench, Workers
from lowtide import BatchQueue, Request, Settings, Ticket
from lowtide.protocol import TicketId, keys

_MODEL = "gemini-3.5-flash"
_TEXT = "Write a blurb of two sentences for the article in our catalogue of garden furniture: "
_ENDED = frozenset({b"completed", b"failed", b"expired", b"cancelled"})
_LOOK_SECONDS = 0.1
_AWAITED = 10_000
_MOST_MEMORY = 200 << 20
"""Bytes that a process may take that awaits so many tickets."""
_MIB = 1 << 20


def _requests(count: int, name: str) -> Iterator[Request]:
    for number in range(count):
        yield Request(key=f"{name}-{number}", contents=f"{_TEXT}{name} {number}.")


def _queue(bench: Bench, **changes: Any) -> BatchQueue:
    return BatchQueue(Settings(_env_file=None, redis_url=bench.redis_server.url, spool_url=bench.spool_url, **changes))


def _wait(bench: Bench, tickets: Sequence[Ticket]) -> int:
    """Waits for the ends of the tickets' batches; returns how many batches there are."""
    client = bench.redis()
    every = {TicketId.parse(ticket.id).batch_id for ticket in tickets}
    left = set(every)
    while left:
        left = {batch_id for batch_id in left if client.hget(keys.batch(batch_id), "state") not in _ENDED}
        time.sleep(_LOOK_SECONDS)
    return len(every)


def _memory(bench: Bench) -> int:
    info = bench.redis().info("memory")
    assert isinstance(info, dict)
    return int(info["used_memory"])


def _run(folder: Path, count: int) -> None:
    with Bench(folder, running_seconds=1) as bench, Workers(bench, "lowtide_worker", 2) as workers:
        workers.warm_up()
        queue, before = _queue(bench), bench.stats()
        queue.add(next(_requests(1, "first")), model=_MODEL)
        times, tickets = [], []
        began = time.perf_counter()
        for request in _requests(count, "one"):
            start = time.perf_counter()
            tickets.append(queue.add(request, model=_MODEL))
            times.append(time.perf_counter() - start)
        alone = time.perf_counter() - began
        many = 10 * count
        start = time.perf_counter()
        tickets += queue.add_many(_requests(many, "many"), model=_MODEL)
        together = time.perf_counter() - start
        batches = _wait(bench, tickets)
        ended = time.perf_counter() - began
        jobs = bench.stats()["calls"].get("batches.create", 0) - before["calls"].get("batches.create", 0)
        times.sort()
        print(
            f"{count:,} by add: {count / alone:,.0f}/s, median {1e3 * times[count // 2]:.2f} ms, "
            f"99 % within {1e3 * times[count * 99 // 100]:.2f} ms; {many:,} by add_many: {many / together:,.0f}/s; "
            f"all have their results after {ended:.1f} s; {batches:,} batches, {jobs:,} provider jobs",
            flush=True,
        )
        waiting = _queue(bench, gather_seconds=3600, gather_requests=10 * count)
        waiting.add_many(_requests(10, "warm"), model=_MODEL, tenant="waiting")
        memory, size = _memory(bench), len(_TEXT)
        waiting.add_many(_requests(count, "wait"), model=_MODEL, tenant="waiting")
        each = (_memory(bench) - memory) / count
        print(f"bytes in Redis for each single with a key that waits: {each:,.0f}, for about {size} bytes of text")


def _await_tickets(folder: Path) -> bool:
    """Awaits tickets in processes of their own; returns whether the memory stays within its bar."""
    peaks: list[int] = []
    with Bench(folder, running_seconds=1) as bench, Workers(bench, "lowtide_worker", 2) as workers:
        workers.warm_up()
        for count in (1, _AWAITED):
            command = [sys.executable, "-m", "benchmarks.tickets", str(count)]
            done = subprocess.run(command, env=bench.env(), cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=600)
            found = json.loads(done.stdout)
            assert found["answered"] == count
            peaks.append(found["peak"])
            print(
                f"{count:,} tickets awaited in one event loop: {found['seconds']:.1f} s with their add_many, "
                f"peak memory {found['peak'] / _MIB:.0f} MiB, {found['connections']} connections at most",
                flush=True,
            )
    return max(peaks) <= _MOST_MEMORY


def measure(counts: Sequence[int]) -> bool:
    """Runs all for each number of requests, and prints the figures; returns whether the bar of memory is met."""
    print(f"load average before: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as name:
        for count in counts:
            _run(Path(name) / str(count), count)
        return _await_tickets(Path(name) / "tickets")
