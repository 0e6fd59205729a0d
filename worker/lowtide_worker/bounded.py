"""Connections whose every step ends at a deadline: a timeout of sockets bounds one step, and a call has many."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import httpcore

from lowtide_worker.deadlines import Deadline

T = TypeVar("T")
_WRITE_BYTES = 1 << 14
"""Bytes to send between two looks at the deadline."""
_ABORT = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""Closing drops what was not sent yet. Else the kernel goes on sending for a call that is given up or a process that is
dead, and over a slow line a request would arrive long after everybody took it for lost."""


class TooLong(OSError):
    """A reply has more bytes than it may have."""


class Exchange:
    """A request and its reply: its deadline, which each byte of the reply puts off a little, and the reply's limit."""

    def __init__(self, deadline: Deadline, *, slowest: float, most_bytes: int) -> None:
        self._deadline = deadline
        self._slowest = slowest
        self._most_bytes = most_bytes
        self._received = 0

    def left(self) -> float:
        """Seconds until its end. Raises `Overdue` afterwards."""
        return self._deadline.left(self._received / self._slowest)

    def took(self, size: int) -> None:
        """Counts bytes of the reply. Raises `TooLong`."""
        self._received += size
        if self._received > self._most_bytes:
            raise TooLong(f"the reply has more than {self._most_bytes:,} bytes")


_current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


@contextmanager
def within(exchange: Exchange) -> Iterator[None]:
    """Bounds all that this thread sends and receives meanwhile over a `BoundedBackend`."""
    token = _current.set(exchange)
    try:
        yield
    finally:
        _current.reset(token)


class BoundedStream(httpcore.NetworkStream):
    """A stream whose every step ends when `left` says so, in seconds, and by its own timeout where that is None."""

    def __init__(
        self, stream: Any, left: Callable[[], float | None], took: Callable[[int], None] = lambda _: None
    ) -> None:
        self._stream = stream
        self._left = left
        self._took = took

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Up to `max_bytes` that have come."""
        data: bytes = _step(self._left, timeout, lambda seconds: self._stream.read(max_bytes, seconds))
        self._took(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Sends all of it, and looks at the deadline before each part."""
        whole = memoryview(buffer)
        for start in range(0, len(whole), _WRITE_BYTES):
            part = whole[start : start + _WRITE_BYTES]
            _step(self._left, timeout, partial(self._stream.write, part))

    def close(self) -> None:
        """Closes it."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same over TLS."""
        stream = _step(self._left, timeout, partial(self._stream.start_tls, ssl_context, server_hostname))
        return BoundedStream(stream, self._left, self._took)

    def get_extra_info(self, info: str) -> Any:
        """As the stream beneath says."""
        return self._stream.get_extra_info(info)


class BoundedBackend(httpcore.NetworkBackend):
    """Opens connections that several threads use in turn: the exchange of the one that uses it bounds each step."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connects."""
        options = [*(socket_options or ()), _ABORT]
        stream = _step(
            _left, timeout, lambda seconds: self._backend.connect_tcp(host, port, seconds, local_address, options)
        )
        return BoundedStream(stream, _left, _took)

    def sleep(self, seconds: float) -> None:
        """Waits before a connection is tried again."""
        self._backend.sleep(seconds)


def _step(left: Callable[[], float | None], timeout: float | None, step: Callable[[float | None], T]) -> T:
    """One step, which may wait for all the time that is left, where there is a bound. Raises `Overdue` at its end."""
    seconds = left()
    try:
        return step(timeout if seconds is None else seconds)
    except Exception:
        # The HTTP client's own timeout would be worth another try to Google's.
        left()
        raise


def _left() -> float | None:
    exchange = _current.get()
    return None if exchange is None else exchange.left()


def _took(size: int) -> None:
    exchange = _current.get()
    if exchange is not None:
        exchange.took(size)
