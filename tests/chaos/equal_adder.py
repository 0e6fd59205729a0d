"""A producer that adds the same request again and again, and notes its tickets: `python equal_adder.py COUNT FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from lowtide import BatchQueue, Request


def add_equal(count: int, path: Path) -> None:
    """Adds so many equal requests one by one, which may have one answer."""
    queue = BatchQueue()
    with path.open("w") as file:
        for _ in range(count):
            ticket = queue.add(Request(contents="The same."), model="gemini-3.5-flash", reuse=3600)
            file.write(f"{ticket.id}\n")
            file.flush()


if __name__ == "__main__":
    add_equal(int(sys.argv[1]), Path(sys.argv[2]))
