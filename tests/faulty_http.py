"""An HTTP proxy on this machine that fails as told, before or after the server behind it has done the work."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

Fault = int | tuple[int, bytes] | Literal["cut before", "cut after", "half an answer"]
"""A status that the proxy answers itself, with or without a body, or a connection that it cuts: before the server has
the request, after it did the work, or in the middle of its answer."""


def is_batch_delete(request: str) -> bool:
    """Whether a request, as in `POST /path`, removes several objects at once, in Cloud Storage or S3."""
    return request.startswith("POST /batch/") or request.endswith("?delete")


class FaultyProxy:
    """Forwards to `server`, as in `http://127.0.0.1:1234`.

    Each of `faults` is for one request, and None is none. `rule` returns the fault for a request, as in `GET /path`,
    or None.
    """

    def __init__(self, server: str) -> None:
        self.faults: list[Fault | None] = []
        self.rule: Callable[[str], Fault | None] = lambda _: None
        self.requests: list[str] = []
        self._behind = urlsplit(server).netloc
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def parse_request(self) -> bool:
                if super().parse_request():
                    proxy.forward(self)
                # All is done: no method of the class is to be called.
                return False

            def log_message(self, *_: object) -> None:
                """Nothing is logged."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def forward(self, call: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        with self._lock:
            request = f"{call.command} {call.path}"
            fault = self.faults.pop(0) if self.faults else self.rule(request)
            self.requests.append(request)
        if call.headers.get("Expect", "").lower() == "100-continue":
            call.send_response_only(100)
            call.end_headers()
        body = _body(call)
        if isinstance(fault, (int, tuple)):
            status, content = (fault, b"") if isinstance(fault, int) else fault
            call.send_response(status)
            call.send_header("Content-Length", str(len(content)))
            call.end_headers()
            call.wfile.write(content)
            return
        if fault == "cut before":
            _cut(call)
            return
        status, headers, answer = self._ask(call, body)
        if fault == "cut after":
            _cut(call)
            return
        call.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                call.send_header(name, value)
        length = dict(headers).get("Content-Length") if call.command == "HEAD" else None
        call.send_header("Content-Length", length or str(len(answer)))
        call.end_headers()
        if fault == "half an answer":
            call.wfile.write(answer[: len(answer) // 2])
            _cut(call)
            return
        call.wfile.write(answer)

    def _ask(self, call: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        server = http.client.HTTPConnection(self._behind, timeout=180)
        try:
            # The signature covers the host that the client knows.
            headers = {name: value for name, value in call.headers.items() if name.lower() != "transfer-encoding"}
            server.request(call.command, call.path, body, headers | {"Content-Length": str(len(body))})
            answer = server.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            server.close()


def _body(call: BaseHTTPRequestHandler) -> bytes:
    if call.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return call.rfile.read(int(call.headers.get("Content-Length", 0)))
    found = b""
    while size := int(call.rfile.readline().partition(b";")[0], 16):
        found += call.rfile.read(size)
        call.rfile.readline()
    call.rfile.readline()
    return found


def _cut(call: BaseHTTPRequestHandler) -> None:
    """Resets the connection."""
    call.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    call.close_connection = True
    call.connection.close()
