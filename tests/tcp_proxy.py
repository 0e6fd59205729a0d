"""The part that TCP proxies of tests have in common: connections, their threads, and the end of both."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self


class TcpProxy(ABC):
    """Connects each client of a port of its own with a server on 127.0.0.1."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @abstractmethod
    def _server_port(self) -> int:
        """The port of the server for a new connection."""

    @abstractmethod
    def _connected(self, client: socket.socket, server: socket.socket) -> None:
        """Starts the two threads of a new connection."""

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A thread that waits in accept wakes up by this alone.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets, threads = list(self._sockets), list(self._threads)
        for one in sockets:
            shut(one)
        for thread in threads:
            thread.join(10)
        for one in sockets:
            one.close()

    def _start(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port()))
            except OSError:
                client.close()
                continue
            for one in (client, server):
                # Otherwise a small piece waits until the one before is acknowledged.
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets += [client, server]
            self._connected(client, server)


def shut(one: socket.socket) -> None:
    """Ends a connection in both directions."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
