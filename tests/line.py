"""A line of limited speed to a server on this machine: what is sent arrives no faster than it allows."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self

_BUFFER = 16 << 10


class Line:
    """Passes connections on to a server. `bytes_per_second` bounds what goes there, and may be changed meanwhile."""

    def __init__(self, url: str, bytes_per_second: float) -> None:
        self.bytes_per_second = bytes_per_second
        self._port = int(url.rpartition(":")[2])
        self._over = threading.Event()
        self._listener = socket.socket()
        # Small, so that what has not passed yet is with the sender.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self._open: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            self._open += [near, far]
            threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, slowly: bool) -> None:
        try:
            while data := source.recv(_BUFFER):
                if slowly:
                    self._over.wait(len(data) / self.bytes_per_second)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            # As a router would: what is lost at one side is lost at the other.
            for end in (source, sink):
                end.close()
