"""A process that awaits tickets in one event loop: `python -m benchmarks.tickets COUNT`, run by `benchmarks.singles`.

It prints, as JSON, the seconds from the first `add_many` to the last result, its peak memory (VmHWM) in bytes, and the
most sockets that it had open to Redis.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from lowtide import AsyncBatchQueue, AsyncTicket, Request

_MODEL = "gemini-3.5-flash"
_TEXT = "Write a blurb of two sentences for the article in our catalogue of garden furniture: "
_LOOK_SECONDS = 0.2


def requests(count: int) -> Iterator[Request]:
    """Yields requests without keys."""
    for number in range(count):
        yield Request(contents=f"{_TEXT}awaited {number}.")


def peak_memory() -> int:
    """Returns the most memory that this process has had, in bytes."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


async def _most_connections(found: list[int]) -> None:
    while True:
        found.append(sum(one.status == "ESTABLISHED" for one in psutil.Process().net_connections("tcp")))
        await asyncio.sleep(_LOOK_SECONDS)


async def _answered(ticket: AsyncTicket) -> bool:
    return bool((await ticket).text)


async def _run(count: int) -> dict[str, object]:
    connections: list[int] = []
    async with AsyncBatchQueue() as queue:
        began = time.perf_counter()
        tickets = await queue.add_many(requests(count), model=_MODEL, tenant=f"awaits {count}")
        watch = asyncio.create_task(_most_connections(connections))
        answered = await asyncio.gather(*map(_answered, tickets))
        seconds = time.perf_counter() - began
        watch.cancel()
    return {
        "seconds": seconds,
        "answered": sum(answered),
        "peak": peak_memory(),
        "connections": max(connections, default=0),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_run(int(sys.argv[1])))))
