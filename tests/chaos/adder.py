"""A producer that adds requests one by one, and notes each ticket that it was given: `python adder.py NAME COUNT FILE`.

A producer that was killed begins again at a request that it has noted already, under the same keys.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from lowtide import BatchQueue, Request, StoreUnavailable

_AGAIN = 20
"""Noted requests that are added again."""


def add_all(name: str, count: int, path: Path) -> None:
    """Adds all, and tries again while Redis is away."""
    queue = BatchQueue()
    noted = path.read_bytes().count(b"\n") if path.exists() else 0
    with path.open("a") as file:
        for number in range(max(0, noted - _AGAIN), count):
            key = f"{name}-{number}"
            while True:
                try:
                    ticket = queue.add(
                        Request(contents=f"Describe {key}."), model="gemini-3.5-flash", key=key, durable=True
                    )
                    break
                except StoreUnavailable:
                    time.sleep(0.05)
            file.write(f"{key} {ticket.id}\n")
            file.flush()


if __name__ == "__main__":
    add_all(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
