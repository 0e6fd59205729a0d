"""A TCP proxy that stops at a given moment of a connection, for something to happen there."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tests.tcp_proxy import TcpProxy, shut


@dataclass(frozen=True)
class Moment:
    """The moment when bytes pass a gate: `share` of the piece that contains `marker` is passed on before it.

    With `reply`, it is the moment when the reply to that piece comes, which is lost.
    """

    marker: bytes
    share: float = 0.0
    reply: bool = False


class Gate(TcpProxy):
    """Passes everything on to a port of 127.0.0.1. At the moment that `stop` names, once, it does something first."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._stop: tuple[Moment, Callable[[], object]] | None = None

    def stop(self, moment: Moment, act: Callable[[], object]) -> None:
        """Does `act` at the next such moment, before anything else passes on that connection."""
        with self._lock:
            self._stop = (moment, act)

    def _server_port(self) -> int:
        return self._port

    def _connected(self, client: socket.socket, server: socket.socket) -> None:
        waiting: list[Callable[[], object]] = []
        self._start(self._to_server, client, server, waiting)
        self._start(self._to_client, client, server, waiting)

    def _to_server(self, client: socket.socket, server: socket.socket, waiting: list[Callable[[], object]]) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                sent = 0
                if found := self._taken(data):
                    moment, act = found
                    if moment.reply:
                        waiting.append(act)
                    else:
                        sent = int(len(data) * moment.share)
                        server.sendall(data[:sent])
                        act()
                server.sendall(data[sent:])
        shut(server)

    def _to_client(self, client: socket.socket, server: socket.socket, waiting: list[Callable[[], object]]) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if waiting:
                    # This reply is lost.
                    waiting.pop()()
                    break
                client.sendall(data)
        shut(client)

    def _taken(self, data: bytes) -> tuple[Moment, Callable[[], object]] | None:
        with self._lock:
            found = self._stop
            if found is None or found[0].marker not in data:
                return None
            self._stop = None
            return found
