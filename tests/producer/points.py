"""Places on a producer's way where something happens to it, by methods that are replaced for a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from lowtide import Request, queue
from lowtide.spool import RequestWriter
from lowtide.store import Store

MODEL = "gemini-3.5-flash"
COUNT = 4
WRITING = "while the requests come"
POINTS: dict[str, tuple[object, str, bool]] = {
    "before the files are whole": (RequestWriter, "finish", False),
    "when the files are whole": (RequestWriter, "finish", True),
    "before the record": (Store, "register", False),
    "after the record": (Store, "register", True),
    "before the message": (queue, "announce", False),
    "after the message": (queue, "announce", True),
}
"""By name: a method or function, and whether the place is behind it."""
RECORDED = frozenset({"after the record", "before the message", "after the message"})


@contextmanager
def happens(point: str, what: Callable[[], object]) -> Iterator[None]:
    """Has something happen, once, at a place, unless that is elsewhere: among the requests, or in Redis."""
    if point not in POINTS:
        yield
        return
    owner, name, after = POINTS[point]
    method = getattr(owner, name)
    left = [what]

    @wraps(method)
    def replaced(*args: Any, **options: Any) -> Any:
        if not after and left:
            left.pop()()
        done = method(*args, **options)
        if after and left:
            left.pop()()
        return done

    setattr(owner, name, replaced)
    try:
        yield
    finally:
        setattr(owner, name, method)


def requests(tag: str, point: str = "", what: Callable[[], object] | None = None) -> Iterator[Request]:
    """Requests of one batch; something happens among them if `point` says so."""
    for number in range(COUNT):
        if number == COUNT - 1 and point == WRITING and what is not None:
            what()
        yield Request(key=f"{tag}-{number}", contents=f"What is {number} times two, {tag}?")
