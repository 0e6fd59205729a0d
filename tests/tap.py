"""A tap on a Redis server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any, Self

from lowtide_cli.local import EmbeddedRedis


class Tap:
    """Hands each command to a server, as MONITOR reports it, to a function; commands of scripts are left out."""

    def __init__(self, server: EmbeddedRedis, seen: Callable[[str], None]) -> None:
        self._server = server
        self._seen = seen

    def __enter__(self) -> Self:
        self._socket = socket.create_connection(("127.0.0.1", self._server.port))
        self._socket.sendall(f"AUTH {self._server.password}\r\nMONITOR\r\n".encode())
        self._lines = self._socket.makefile("rb")
        assert [self._lines.readline(), self._lines.readline()] == [b"+OK\r\n"] * 2
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self

    def _listen(self) -> None:
        try:
            for line in self._lines:
                if b" lua] " not in line:
                    self._seen(line.decode().strip())
        except (OSError, ValueError):
            return

    def __exit__(self, *_: Any) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._lines.close()
        self._socket.close()
