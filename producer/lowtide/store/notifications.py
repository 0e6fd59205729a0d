"""Notifications: waiting for changes of many batches over one connection of the process.

The scripts publish the state of a batch on the channel of the batch each time its state or its counters change. A
publication can be lost, so every state is also read again after 10 to 20 seconds, all of them in one call. The
same happens each time the connection is made again. A caller may therefore take a notification as a hint that never
fails to come, and reads the record itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import redis

from lowtide.backoff import Backoff
from lowtide.protocol import keys
from lowtide.store import scripts

log = logging.getLogger(__name__)

_ROUND_SECONDS = (10.0, 20.0)
"""Shortest and longest time between two reads of all states."""
_IDLE_SECONDS = 5.0
"""Time for which the connection stays when nothing is waited for."""
_OUTAGE_SECONDS = 60.0
"""An outage of Redis that lasts longer is no secret to the callers: they read for themselves, and get the error."""
_READ_SECONDS = 5.0
"""Longest time in which a message that has begun to arrive must be complete."""
_LONGEST_WAIT_SECONDS = 86_400.0
"""Longest wait of a thread for one notification: Python's locks know no times beyond some centuries."""
_AT_ONCE = 500
"""Most channels, or states, in one command."""
_BACKOFF = Backoff(first=0.2, cap=10.0)
_STAYS = keys.changed("")
"""A channel without messages: a connection needs one to be one for subscriptions."""


class _Waiter(Protocol):
    def tell(self, state: str) -> None: ...


class Notified:
    """The notifications of one record, for a thread.

    `state` is the record's `state` as it was last heard: "" before, where there is no such record any more, and after
    Redis could not be reached for a minute. In these cases the caller reads for itself.
    """

    def __init__(self) -> None:
        self.state = ""
        self._news = threading.Event()

    def tell(self, state: str) -> None:
        """Wakes the thread."""
        self.state = state
        self._news.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks until there is a notification since the last call; returns False after `timeout` seconds, or a day.

        The first notification comes by itself, as soon as no later one can be missed.
        """
        heard = self._news.wait(None if timeout is None else max(0.0, min(timeout, _LONGEST_WAIT_SECONDS)))
        self._news.clear()
        return heard


class AsyncNotified:
    """The notifications of one record, for a task: as `Notified`."""

    def __init__(self) -> None:
        self.state = ""
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def tell(self, state: str) -> None:
        """Wakes the task; called from another thread."""
        with suppress(RuntimeError):  # its event loop is closed
            self._loop.call_soon_threadsafe(self._tell, state)

    def _tell(self, state: str) -> None:
        self.state = state
        self._news.set()

    async def wait(self) -> None:
        """Waits until there is a notification since the last call: see `Notified.wait`."""
        await self._news.wait()
        self._news.clear()


class _Bell:
    """Wakes a thread that waits for a selector."""

    def __init__(self) -> None:
        self.listener, self._ringer = socket.socketpair()
        self.listener.setblocking(False)
        self._ringer.setblocking(False)

    def ring(self) -> None:
        with suppress(BlockingIOError):  # it is full, so the thread wakes in any case
            self._ringer.send(b"\0")

    def heard(self) -> None:
        with suppress(BlockingIOError):
            self.listener.recv(4096)

    def close(self) -> None:
        self.listener.close()
        self._ringer.close()


class Notifications:
    """Waits for notifications about any number of records. It is safe to share between threads, and after a fork.

    One thread of the process listens, over a connection of its own, while there is a waiter. It makes the connection
    again after any error; behind Sentinels the new one leads to the master of then.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._states = scripts.states.load(client)
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._waiters: dict[str, tuple[str, list[_Waiter]]] = {}
        """By channel: the key of its record, and its waiters."""
        self._new: set[str] = set()
        """Channels that have a new waiter."""
        self._bell: _Bell | None = None
        """Wakes the thread; None while there is no thread."""

    @contextmanager
    def of(self, channel: str, record: str) -> Iterator[Notified]:
        """Subscribes a thread to a channel during the block.

        - `record`: the key of the hash that the channel is about, whose field `state` is read.
        """
        with self._joined(channel, record, Notified()) as waiter:
            yield waiter

    @contextmanager
    def of_async(self, channel: str, record: str) -> Iterator[AsyncNotified]:
        """Subscribes a task to a channel during the block: see `of`. It blocks for no longer than a lock is held."""
        with self._joined(channel, record, AsyncNotified()) as waiter:
            yield waiter

    @contextmanager
    def _joined(self, channel: str, record: str, waiter: Any) -> Iterator[Any]:
        if self._pid != os.getpid():
            # The thread and its connection stayed in the parent process.
            if self._bell is not None:
                self._bell.close()
            self._forget()
        # Ctrl-C may interrupt any line here.
        try:
            with self._lock:
                if self._bell is None:
                    self._bell = self._started()
                self._waiters.setdefault(channel, (record, []))[1].append(waiter)
                self._new.add(channel)
                self._bell.ring()
            yield waiter
        finally:
            with self._lock:
                waiters = self._waiters.get(channel, ("", []))[1]
                if waiter in waiters:
                    waiters.remove(waiter)
                if not waiters:
                    self._waiters.pop(channel, None)
                if self._bell is not None:
                    self._bell.ring()

    def _started(self) -> _Bell:
        """Starts the thread, which waits for the lock before it looks for waiters. Raises `RuntimeError` at a limit."""
        bell = _Bell()
        try:
            threading.Thread(target=self._run, args=(bell,), name="lowtide-notifications", daemon=True).start()
        except BaseException:
            bell.close()
            raise
        return bell

    def _run(self, bell: _Bell) -> None:
        try:
            self._listen(bell)
        finally:
            with self._lock:
                if self._bell is bell:
                    self._bell = None
            bell.close()

    def _listen(self, bell: _Bell) -> None:
        tries, since = 0, None
        while not self._is_over(bell):
            try:
                for _ in self._listened(bell):
                    tries, since = 0, None
            except (redis.RedisError, OSError) as error:
                since = since or time.monotonic()
                if not tries:
                    log.info("notifications of Redis are interrupted: %s", type(error).__name__)
                self._read_without_subscription(since)
                time.sleep(_BACKOFF.seconds(tries))
                tries += 1

    def _is_over(self, bell: _Bell) -> bool:
        """Whether there is no waiter; then the next one starts a new thread."""
        with self._lock:
            if self._waiters:
                return False
            if self._bell is bell:
                self._bell = None
            return True

    def _read_without_subscription(self, since: float) -> None:
        """Reads all states, as it may be only the subscription that fails. Reports an outage that lasts."""
        try:
            self._read(self._channels())
        except (redis.RedisError, OSError):
            if time.monotonic() - since > _OUTAGE_SECONDS:
                for channel in self._channels():
                    self._tell(channel, "")

    def _channels(self) -> set[str]:
        with self._lock:
            return set(self._waiters)

    def _listened(self, bell: _Bell) -> Iterator[None]:
        """Listens over one connection until there is no waiter; yields after each look. Raises `redis.RedisError`."""
        with self._redis.pubsub() as pubsub, selectors.DefaultSelector() as selector:
            pubsub.subscribe(_STAYS)
            connection: Any = pubsub.connection
            selector.register(connection._sock, selectors.EVENT_READ)  # noqa: SLF001 - it has no public name
            selector.register(bell.listener, selectors.EVENT_READ)
            subscribed: set[str] = set()
            confirmed: set[str] = set()
            alive, idle_since = True, None
            round_ends = time.monotonic()
            while True:
                unread = self._taken_new() & confirmed
                wanted = self._channels()
                for some in _parts(wanted - subscribed):
                    pubsub.subscribe(*some)
                for some in _parts(subscribed - wanted):
                    pubsub.unsubscribe(*some)
                confirmed &= wanted
                subscribed = wanted
                while connection.can_read(timeout=0):
                    message = pubsub.get_message(timeout=_READ_SECONDS)
                    alive = True
                    if message is None or message["channel"] is None:
                        continue
                    channel = message["channel"].decode()
                    if message["type"] == "message":
                        self._tell(channel, message["data"].decode(errors="replace"))
                    elif message["type"] == "subscribe" and channel in wanted:
                        confirmed.add(channel)
                        unread.add(channel)
                now = time.monotonic()
                if now >= round_ends:
                    if not alive:
                        raise redis.ConnectionError("the connection for notifications is silent")
                    pubsub.ping()
                    alive, unread = False, set(confirmed)
                    round_ends = now + random.uniform(*_ROUND_SECONDS)  # noqa: S311 - spreads load, guards nothing
                self._read(unread)
                yield
                idle_since = None if wanted else idle_since or now
                if idle_since is not None and now - idle_since >= _IDLE_SECONDS:
                    return
                selector.select(round_ends - now if idle_since is None else _IDLE_SECONDS)
                bell.heard()

    def _taken_new(self) -> set[str]:
        with self._lock:
            new, self._new = self._new, set()
        return new

    def _read(self, channels: Iterable[str]) -> None:
        """Reads the states of these channels' records, and wakes their waiters."""
        for some in _parts(channels):
            with self._lock:
                records = {channel: self._waiters[channel][0] for channel in some if channel in self._waiters}
            if records:
                states = self._states(records=list(records.values()), field="state")
                for channel, state in zip(records, states, strict=True):
                    self._tell(channel, state.decode(errors="replace"))

    def _tell(self, channel: str, state: str) -> None:
        with self._lock:
            _, waiters = self._waiters.get(channel, ("", []))
            for waiter in waiters:
                waiter.tell(state)


def _parts(channels: Iterable[str]) -> Iterator[list[str]]:
    every = sorted(channels)
    for first in range(0, len(every), _AT_ONCE):
        yield every[first : first + _AT_ONCE]
