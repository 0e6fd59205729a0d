"""A service that takes webhooks, over real HTTP or HTTPS: it records what came and answers as the test says."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

from standardwebhooks import Webhook

SECRET = "whsec_" + "bG93dGlkZS10ZXN0LXNlY3JldC0wMTIzNDU2Nzg5"


class Answer(NamedTuple):
    """The answer of the service."""

    status: int = 200
    body: bytes = b"thanks"
    location: str | None = None
    never: bool = False
    """Keep the caller waiting until the test is over."""
    drip: bool = False
    """Send one byte of an endless header at a time until the test is over."""


class Hook(NamedTuple):
    """One request, its signature verified."""

    method: str
    path: str
    headers: dict[str, str]
    data: dict[str, Any]
    """The `data` of the body."""
    event: dict[str, Any]
    """The whole body."""
    body: bytes
    """The same, byte for byte."""

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class Receiver:
    """Answers the nth request (from 1) with `answers(n)`."""

    def __init__(
        self,
        answers: Callable[[int], Answer] = lambda _: Answer(),
        *,
        secret: str = SECRET,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.hooks: list[Hook] = []
        self.bodies: list[bytes] = []
        self.refused: list[str] = []
        """Requests whose signature does not verify."""
        self.over = threading.Event()
        self._answers = answers
        self._webhook = Webhook(secret)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._request_handler())
        self._server.daemon_threads = True
        self._scheme = "http"
        if tls is not None:
            self._scheme = "https"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The root that a worker may be allowed to call."""
        return f"{self._scheme}://127.0.0.1:{self.port}/hooks/"

    def env(self, **changes: str) -> dict[str, str]:
        """Settings of a worker that may call this service."""
        return {
            "LOWTIDE_WEBHOOK_SECRETS": json.dumps({self.url: SECRET}),
            "LOWTIDE_WEBHOOK_ALLOW_PRIVATE": "true",
            "LOWTIDE_WEBHOOK_ALLOW_HTTP": "true",
        } | changes

    def _record(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        with self._lock:
            event = self._webhook.verify(body, headers)
            self.bodies.append(body)
            self.hooks.append(Hook(method, path, headers, event["data"], event, body))
            return self._answers(len(self.hooks))

    def _request_handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class RequestHandler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                try:
                    answer = receiver._record(self.command, self.path, headers, body)
                except Exception as error:  # noqa: BLE001 - whatever it is, the test is to see it
                    receiver.refused.append(repr(error))
                    answer = Answer(401)
                if answer.never:
                    receiver.over.wait()
                    return
                self.send_response(answer.status)
                if answer.location:
                    self.send_header("location", answer.location)
                self.send_header("content-length", str(len(answer.body)))
                try:
                    if answer.drip:
                        self.flush_headers()
                        while not receiver.over.wait(0.02):
                            self.wfile.write(b"x")
                        return
                    self.end_headers()
                    self.wfile.write(answer.body)
                except OSError:
                    return  # the caller has had enough

            do_GET = do_POST  # noqa: N815 - http.server's name

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
                pass

        return RequestHandler
