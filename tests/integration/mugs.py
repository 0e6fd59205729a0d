"""Singles of tests, and the number of those that wait."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tests.stack import Stack

from lowtide import Request
from lowtide.protocol import keys, measures

SOON = {"gather_seconds": 0.2, "linger_seconds": 0.0}
"""Settings of a producer that need not wait for others."""
ONE = Request(contents="Describe a blue mug.")


def mugs(count: int) -> Iterator[Request]:
    tag = os.urandom(4).hex()
    for number in range(count):
        yield Request(key=f"{tag}-{number}", contents=f"Describe mug {tag}x{number}.", metadata={"n": str(number)})


def waiting(stack: Stack) -> int:
    return int(stack.redis.hget(keys.CENSUS, measures.SINGLES_WAITING) or 0)
