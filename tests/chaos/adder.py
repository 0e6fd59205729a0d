"""A producer that adds requests one by one, and notes each ticket that it was given: `python adder.py NAME COUNT FILE`.

A producer that was killed begins again at a request that it has noted already, under the same keys.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from tests.waiting import wait_until

from lowtide import BatchQueue, Request, StoreUnavailable, Ticket

_AGAIN = 20
"""Noted requests that are added again."""


def _added(queue: BatchQueue, key: str) -> Ticket | None:
    """The ticket; None while Redis is away."""
    try:
        return queue.add(Request(contents=f"Describe {key}."), model="gemini-3.5-flash", key=key, durable=True)
    except StoreUnavailable:
        return None


def add_all(name: str, count: int, path: Path) -> None:
    """Adds all, and tries again while Redis is away."""
    queue = BatchQueue()
    noted = path.read_bytes().count(b"\n") if path.exists() else 0
    with path.open("a") as file:
        for number in range(max(0, noted - _AGAIN), count):
            key = f"{name}-{number}"
            ticket = wait_until(partial(_added, queue, key), what="Redis is back")
            file.write(f"{key} {ticket.id}\n")
            file.flush()


if __name__ == "__main__":
    add_all(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
