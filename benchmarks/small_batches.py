"""Many small batches: with jobs that they share, beside a job for each.

`.venv-bench/bin/python -m benchmarks.small_batches 1000` submits so many batches of ten requests one after another in
this process, while two worker processes run, and waits for their ends. A tenth of them, which get a job each, is enough
for a rate to compare with. A provider job takes a second.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.servers import Bench, Workers
from lowtide import BatchQueue, Request, Settings
from lowtide.protocol import keys

_MODEL = "gemini-3.5-flash"
_REQUESTS = 10
_ENDED = frozenset({b"completed", b"failed", b"expired", b"cancelled"})
_AT_ONCE = 500
_LOOK_SECONDS = 0.1


class Figures(NamedTuple):
    """The figures of one run; times in seconds."""

    batches: int
    submitted: float
    ended: float
    jobs: int
    calls: int
    store_bytes: int
    """Memory of Redis at the end, less that before the first batch."""


def _batches(count: int) -> Iterator[list[Request]]:
    for batch in range(count):
        yield [Request(key=f"k{n}", contents=f"Describe article {batch}-{n}.") for n in range(_REQUESTS)]


def _run(folder: Path, count: int, *, share: bool) -> Figures:
    with Bench(folder, running_seconds=1) as bench, Workers(bench, "lowtide_worker", 2) as workers:
        workers.warm_up()
        before, memory = bench.stats(), _memory(bench)
        settings = Settings(
            _env_file=None, redis_url=bench.redis_server.url, spool_url=bench.spool_url, share_jobs=share
        )
        queue = BatchQueue(settings)
        began = time.perf_counter()
        ids = [queue.submit(requests, model=_MODEL).id for requests in _batches(count)]
        submitted = time.perf_counter() - began
        _wait(bench, ids)
        ended = time.perf_counter() - began
        after = bench.stats()
        calls = {name: after["calls"].get(name, 0) - before["calls"].get(name, 0) for name in after["calls"]}
        return Figures(
            count, submitted, ended, calls.get("batches.create", 0), sum(calls.values()), _memory(bench) - memory
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
        f"{found.calls:,} provider calls; "
        f"{found.store_bytes / found.batches:,.0f} bytes in Redis for each finished batch"
    )


def measure(count: int) -> None:
    """Runs both and prints the figures."""
    with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as folder:
        shared = _run(Path(folder) / "shared", count, share=True)
        _show("shared", shared)
        alone = _run(Path(folder) / "alone", max(1, count // 10), share=False)
        _show("a job each", alone)
    rates = [found.batches / found.ended for found in (shared, alone)]
    print(f"end to end, shared beside a job each: {rates[0] / rates[1]:.1f} times as many batches a second")


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
