"""A real server that says it is older than it is."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from typing import Any, Self

from lowtide_cli.embedded import EmbeddedRedis


class OlderServer:
    """A proxy before a server; in answers to INFO, version 7 of Redis becomes version 6."""

    def __init__(self, server: EmbeddedRedis) -> None:
        self._server = server

    def __enter__(self) -> Self:
        target = self._server.port

        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection(("127.0.0.1", target)) as behind:
                    forward = threading.Thread(target=_carry, args=(self.request, behind), daemon=True)
                    forward.start()
                    _carry(behind, self.request)

        self._proxy = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection)
        self._proxy.daemon_threads = True
        self._thread = threading.Thread(target=self._proxy.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._proxy.shutdown()
        self._thread.join()
        self._proxy.server_close()

    @property
    def url(self) -> str:
        """The server's URL, through the proxy."""
        return self._server.url.replace(f":{self._server.port}/", f":{self._proxy.server_address[1]}/")


def _carry(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(re.sub(rb"(redis_version:)7\.", rb"\g<1>6.", data))
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return
