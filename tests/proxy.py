"""A TCP proxy in front of a Redis server: replies go astray or are changed, and another server takes its place."""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import Enum

from lowtide_cli.local import EmbeddedRedis
from tests.tcp_proxy import TcpProxy, shut


class Loss(Enum):
    """The ways in which a reply is lost. The server has executed the command in either case."""

    CUT = "the connection is cut"
    SILENCE = "nothing comes any more"


class RedisProxy(TcpProxy):
    """Passes everything on, except some replies to commands that contain given bytes.

    `changed` is applied to each piece of a reply.
    """

    def __init__(self, server: EmbeddedRedis, changed: Callable[[bytes], bytes] = bytes) -> None:
        super().__init__()
        self._server = server
        self._changed = changed
        self._lost: tuple[bytes, Loss, int] = (b"", Loss.CUT, 0)
        self.hits = 0

    @property
    def url(self) -> str:
        """The server's URL, by way of here."""
        return self._server.url.replace(f":{self._server.port}/", f":{self.port}/")

    def switch(self, server: EmbeddedRedis) -> None:
        """Cuts all connections; new ones go to another server."""
        with self._lock:
            self._server = server
            cut = list(self._sockets)
        for one in cut:
            shut(one)

    def lose(self, marker: bytes, loss: Loss, times: int) -> None:
        """Loses the replies to the next commands with these bytes in them."""
        with self._lock:
            self._lost, self.hits = (marker, loss, times), 0

    def _server_port(self) -> int:
        with self._lock:
            return self._server.port

    def _connected(self, client: socket.socket, server: socket.socket) -> None:
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
        shut(server)

    def _to_client(self, client: socket.socket, server: socket.socket, fate: _Fate) -> None:
        try:
            while data := server.recv(1 << 16):
                if fate.loss is Loss.CUT:
                    break
                if fate.loss is None:
                    client.sendall(self._changed(data))
        except OSError:
            pass
        shut(client)


class _Fate:
    """The fate of the replies on one connection."""

    loss: Loss | None = None
