"""A TCP proxy in front of a Redis server: replies go astray or are changed, and another server takes its place."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Self

from lowtide_cli.local import EmbeddedRedis


class Loss(Enum):
    """The ways in which a reply is lost. The server has executed the command in either case."""

    CUT = "the connection is cut"
    SILENCE = "nothing comes any more"


class RedisProxy:
    """Passes everything on, except some replies to commands that contain given bytes.

    `changed` is applied to each piece of a reply.
    """

    def __init__(self, server: EmbeddedRedis, changed: Callable[[bytes], bytes] = bytes) -> None:
        self._server = server
        self._changed = changed
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._lost: tuple[bytes, Loss, int] = (b"", Loss.CUT, 0)
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.hits = 0

    @property
    def url(self) -> str:
        """The server's URL, by way of here."""
        return self._server.url.replace(f":{self._server.port}/", f":{self._listener.getsockname()[1]}/")

    def switch(self, server: EmbeddedRedis) -> None:
        """Cuts all connections; new ones go to another server."""
        with self._lock:
            self._server = server
            cut = list(self._sockets)
        for one in cut:
            _shut(one)

    def lose(self, marker: bytes, loss: Loss, times: int) -> None:
        """Loses the replies to the next commands with these bytes in them."""
        with self._lock:
            self._lost, self.hits = (marker, loss, times), 0

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
            _shut(one)
        for thread in threads:
            thread.join(10)
        for one in sockets:
            one.close()

    def _start(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                port = self._server.port
            try:
                server = socket.create_connection(("127.0.0.1", port))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets += [client, server]
            fate = _Fate()
            self._start(self._to_server, client, server, fate)
            self._start(self._to_client, client, server, fate)

    def _to_server(self, client: socket.socket, server: socket.socket, fate: _Fate) -> None:
        try:
            while data := client.recv(1 << 16):
                with self._lock:
                    marker, loss, times = self._lost
                    if times and marker in data:
                        self._lost = (marker, loss, times - 1)
                        self.hits += 1
                        fate.loss = loss
                server.sendall(data)
        except OSError:
            pass
        _shut(server)

    def _to_client(self, client: socket.socket, server: socket.socket, fate: _Fate) -> None:
        try:
            while data := server.recv(1 << 16):
                if fate.loss is Loss.CUT:
                    break
                if fate.loss is None:
                    client.sendall(self._changed(data))
        except OSError:
            pass
        _shut(client)


class _Fate:
    """The fate of the replies on one connection."""

    loss: Loss | None = None


def _shut(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
