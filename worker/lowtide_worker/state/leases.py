"""The leases of all that this process works on. One thread renews them, so a stage that waits need not."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis

from lowtide_worker.deadlines import elapsed
from lowtide_worker.events import Event
from lowtide_worker.state.held import Held, Superseded

log = logging.getLogger(__name__)


class Leases:
    """Renews each lease after a third of its time, until its stage ends, but for no longer than `limit` seconds."""

    def __init__(self, keep: Callable[[Held[Any]], None], *, lease: float, limit: float) -> None:
        self._keep = keep
        self._lease = lease
        self._limit = limit
        self._pid = 0
        self._starting = threading.Lock()
        self._held: dict[int, tuple[Held[Any], float]] = {}

    @contextmanager
    def kept(self, held: Held[Any]) -> Iterator[None]:
        """Keeps the lease inside the block. A stage that ends before a third of the lease is over costs no call."""
        if self._pid != os.getpid():
            self._start()
        number = id(held)
        self._held[number] = held, elapsed() + self._limit
        try:
            yield
        finally:
            del self._held[number]

    def _start(self) -> None:
        with self._starting:
            # A forked child has the parent's memory, but not its threads.
            if self._pid != os.getpid():
                self._held = {}
                threading.Thread(target=self._renew, name="leases", daemon=True).start()
                # Last: another thread that sees it needs nothing else, and a thread that cannot start is started again.
                self._pid = os.getpid()

    def _renew(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._lease / 6):
            for held, end in list(self._held.values()):
                lease = held.lease
                if lease.lost or lease.until - elapsed() > self._lease * 2 / 3:
                    continue
                if elapsed() > end:
                    log.error(
                        "%s: %s takes more than %g s; given up",
                        held.member,
                        held.stage,
                        self._limit,
                        extra=Event.STAGE_TOO_LONG.extra,
                    )
                    lease.lost = True
                    continue
                # The stage finds out by itself, and so does the next round.
                with suppress(redis.RedisError, Superseded):
                    self._keep(held)
