"""The leases of all that this process works on, renewed by one thread: no stage has to think of it while it waits."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import redis

from lowtide_worker.deadlines import elapsed
from lowtide_worker.state.clock import Held, Superseded

log = logging.getLogger(__name__)


class Leases:
    """Renews leases every third of their time, until their stage ends, but for no longer than `limit` seconds."""

    def __init__(self, keep: Callable[[Held], None], *, lease: float, limit: float) -> None:
        self._keep = keep
        self._lease = lease
        self._limit = limit
        self._pid = 0
        self._starting = threading.Lock()
        self._held: dict[int, tuple[Held, float]] = {}

    @contextmanager
    def kept(self, held: Held) -> Iterator[None]:
        """Keeps the lease meanwhile. A stage that is over before a third of it costs no call."""
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
                # Last: who sees it needs no more than is there then, and a thread that cannot start is tried again.
                self._pid = os.getpid()

    def _renew(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._lease / 6):
            for held, end in list(self._held.values()):
                lease = held.lease
                if lease.lost or lease.until - elapsed() > self._lease * 2 / 3:
                    continue
                if elapsed() > end:
                    log.error("%s: %s takes more than %g s; given up", held.member, held.stage, self._limit)
                    lease.lost = True
                    continue
                # Whoever works on it finds out by itself, and so does the next round.
                with suppress(redis.RedisError, Superseded):
                    self._keep(held)
