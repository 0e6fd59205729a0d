"""A thousand waits for a thousand batches, beside a thousand loops that read the status twice a second.

`make bench ARGS="waits"` submits the batches, which no worker works on. It counts the calls that reach Redis meanwhile,
and the processor time of this process. Commands within a script belong to the call that runs it.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import redis

from benchmarks.measure import cpu_seconds
from benchmarks.parts import console
from benchmarks.servers import Bench
from lowtide import AsyncBatch, BatchQueue, Request, Settings

_MODEL = "gemini-3.5-flash"
_WARM_SECONDS = 8.0
_SECONDS = 60.0
_POLL_SECONDS = 0.5
_WITHIN_SCRIPTS = frozenset({"cmdstat_hget"})
"""Commands that neither kind of wait calls by itself."""


class Figures(NamedTuple):
    """The figures of one kind of wait."""

    calls: float
    """Calls that reach Redis, in one second."""
    cpu_percent: float
    """Processor time of the waiting process, in percent of a core."""


async def _polls(batch: AsyncBatch) -> None:
    while not (await batch.summary()).finished:  # noqa: ASYNC110 - this is what is measured
        await asyncio.sleep(_POLL_SECONDS)


async def _waits(batch: AsyncBatch) -> None:
    await batch.wait()


async def _run(
    client: redis.Redis, batches: Sequence[AsyncBatch], wait: Callable[[AsyncBatch], Awaitable[None]]
) -> Figures:
    tasks = [asyncio.ensure_future(wait(batch)) for batch in batches]
    await asyncio.sleep(_WARM_SECONDS)
    calls, cpu, began = _calls(client), cpu_seconds(os.getpid()), time.monotonic()
    await asyncio.sleep(_SECONDS)
    seconds = time.monotonic() - began
    found = Figures((_calls(client) - calls) / seconds, 100 * (cpu_seconds(os.getpid()) - cpu) / seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


def _calls(client: redis.Redis) -> int:
    return sum(
        int(found["calls"]) for name, found in client.info("commandstats").items() if name not in _WITHIN_SCRIPTS
    )


def measure(sizes: Sequence[int]) -> None:
    """Measures each number of batches, and prints the figures."""
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as folder, Bench(Path(folder) / "waits") as bench:
            settings = Settings(_env_file=None, redis_url=bench.redis_server.url, spool_url=bench.spool_url)
            submitted = BatchQueue(settings).submit_many(
                {"requests": [Request(key="a", contents="Describe a mug.")], "model": _MODEL} for _ in range(size)
            )
            batches = [AsyncBatch(batch) for batch in submitted]
            for name, wait in (("loops that read the status", _polls), ("wait()", _waits)):
                found = asyncio.run(_run(bench.redis(), batches, wait))
                console.print(f"  {size:,} {name}: {found.calls:,.1f} calls/s, {found.cpu_percent:.2f} % of a core")
