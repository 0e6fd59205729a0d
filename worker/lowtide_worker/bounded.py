"""Network connections whose every step ends at a deadline.

A socket's timeout bounds one step only, and a call has many steps. Used by the providers' HTTP client, and by webhooks.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import httpcore2

from lowtide_worker.deadlines import Deadline

T = TypeVar("T")
_WRITE_BYTES = 1 << 14
"""Bytes that are sent between two checks of the deadline."""
_ABORT = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""Socket option: closing the connection drops the bytes that are not sent yet.

Without it the kernel goes on sending after the call has timed out or the process has died. Over a slow line, a request
would arrive long after Lowtide had counted it as lost."""


class TooLong(OSError):
    """A reply is longer than its limit."""


class Exchange:
    """The bounds of a request and its reply.

    - `deadline`: the end of the exchange. Each received byte puts it off by 1 / `slowest` seconds.
    - `slowest`: the slowest accepted transfer, in bytes per second.
    - `most_bytes`: the size limit of the reply.
    """

    def __init__(self, deadline: Deadline, *, slowest: float, most_bytes: int) -> None:
        self._deadline = deadline
        self._slowest = slowest
        self._most_bytes = most_bytes
        self._received = 0

    def left(self) -> float:
        """Returns the seconds until its end. Raises `Overdue` once it has passed."""
        return self._deadline.left(self._received / self._slowest)

    def count(self, size: int) -> None:
        """Counts `size` received bytes. Raises `TooLong` beyond the limit."""
        self._received += size
        if self._received > self._most_bytes:
            raise TooLong(f"the reply has more than {self._most_bytes:,} bytes")


_current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


@contextmanager
def within(exchange: Exchange) -> Iterator[None]:
    """Bounds all that this thread sends and receives over a `BoundedBackend` within the `with` block."""
    token = _current.set(exchange)
    try:
        yield
    finally:
        _current.reset(token)


class BoundedStream(httpcore2.NetworkStream):
    """A network stream whose every step is bounded.

    - `left`: returns the seconds that the next step may take, or None for the step's own timeout.
    - `count`: called with the number of bytes that each read returned.
    """

    def __init__(
        self, stream: Any, left: Callable[[], float | None], count: Callable[[int], None] = lambda _: None
    ) -> None:
        self._stream = stream
        self._left = left
        self._count = count

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Returns up to `max_bytes` received bytes. Raises `Overdue`, and what `count` raises."""
        data: bytes = _step(self._left, timeout, lambda seconds: self._stream.read(max_bytes, seconds))
        self._count(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Sends the whole buffer, and checks the deadline before each part. Raises `Overdue`."""
        whole = memoryview(buffer)
        for start in range(0, len(whole), _WRITE_BYTES):
            part = whole[start : start + _WRITE_BYTES]
            _step(self._left, timeout, partial(self._stream.write, part))

    def close(self) -> None:
        """Closes the stream."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Returns the stream with TLS over it, bounded in the same way. Raises `Overdue`."""
        stream = _step(self._left, timeout, partial(self._stream.start_tls, ssl_context, server_hostname))
        return BoundedStream(stream, self._left, self._count)

    def get_extra_info(self, info: str) -> Any:
        """Returns what the underlying stream returns."""
        return self._stream.get_extra_info(info)


class BoundedBackend(httpcore2.NetworkBackend):
    """Opens connections that several threads use in turn. The exchange of the thread that uses one bounds its steps."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Opens a bounded connection. Raises `Overdue`."""
        options = [*(socket_options or ()), _ABORT]
        stream = _step(
            _left, timeout, lambda seconds: self._backend.connect_tcp(host, port, seconds, local_address, options)
        )
        return BoundedStream(stream, _left, _count)

    def sleep(self, seconds: float) -> None:
        """Waits for some seconds before the next try to connect."""
        self._backend.sleep(seconds)


def _step(left: Callable[[], float | None], timeout: float | None, step: Callable[[float | None], T]) -> T:
    """Runs one step, with the time that is left as its timeout. Raises `Overdue` when none is left."""
    seconds = left()
    try:
        return step(timeout if seconds is None else seconds)
    except Exception:
        # Google's client would retry after a plain timeout, but not after `Overdue`.
        left()
        raise


def _left() -> float | None:
    exchange = _current.get()
    return None if exchange is None else exchange.left()


def _count(size: int) -> None:
    exchange = _current.get()
    if exchange is not None:
        exchange.count(size)
