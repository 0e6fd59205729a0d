"""The health of a worker: whether its main loop runs, and whether it can take work.

The server runs on a thread of the main process and needs no message and no pool, so it also answers while all processes
or threads are at work. `/livez` does not depend on Redis: a worker that waits for Redis must not be restarted for that.
"""

from __future__ import annotations

import os
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from lowtide.store import RedisProbe
from lowtide_worker.deadlines import elapsed
from lowtide_worker.settings import WorkerSettings

_STUCK_SECONDS = 300.0
"""A main loop that has not ticked for this long while it was connected does not run any more."""
_LATE_SECONDS = 30.0
"""A worker that has not ticked for this long is not ready."""
_CLIENT_SECONDS = 5.0


class Health:
    """The health of this process, as its ticker reports it."""

    def __init__(self) -> None:
        self._ticked: float | None = None
        self._blocks = False

    def connected(self, *, blocks: bool) -> None:
        """Notes that the worker is connected and its surroundings are in order.

        - `blocks`: whether the main loop stops while a task runs, as it does in a worker without a pool.
        """
        self._blocks = blocks
        self.ticked()

    def ticked(self) -> None:
        """Notes that the main loop runs."""
        self._ticked = elapsed()

    def disconnected(self) -> None:
        """Notes that the worker takes no work: it connects again, or ends."""
        self._ticked = None

    def why_not_live(self) -> str:
        """The reason to restart this worker; "" for none."""
        ticked = self._ticked
        if ticked is None or self._blocks or elapsed() - ticked < _STUCK_SECONDS:
            return ""
        return f"the main loop has not run for {elapsed() - ticked:.0f} s"

    def why_not_ready(self) -> str:
        """The reason why this worker takes no work; "" where it does."""
        ticked = self._ticked
        if ticked is None:
            return "not connected to Redis, or Redis and the spool are not checked yet"
        if not self._blocks and elapsed() - ticked > _LATE_SECONDS:
            return f"the main loop has not run for {elapsed() - ticked:.0f} s"
        return ""


HEALTH = Health()
"""The health of this process."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Binds without the look-up of the host's name, which may wait for a DNS server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class HealthServer:
    """The HTTP server of `/livez` and `/readyz`: 200, or 503 with the reason."""

    def __init__(self, settings: WorkerSettings, health: Health) -> None:
        """Listens. Raises `OSError` if it cannot, as for a port that is taken."""
        self._health = health
        self._redis = RedisProbe(settings)
        self._pid = os.getpid()
        self._server = _Server((settings.health_host, settings.health_port), self._handler())
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_port

    def close_in_child(self) -> None:
        """Closes the listening socket in a forked child, which must not keep the port when the worker has ended."""
        if os.getpid() != self._pid:
            self._server.socket.close()

    def _why_not(self, path: str) -> str | None:
        """The reason for a failed probe, "" for a good one; None where there is no such probe."""
        match path:
            case "/livez":
                return self._health.why_not_live()
            case "/readyz":
                return self._health.why_not_ready() or self._redis.why_not()
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        why_not = self._why_not

        class Handler(BaseHTTPRequestHandler):
            timeout = _CLIENT_SECONDS
            server_version = "lowtide"
            sys_version = ""

            def do_GET(self) -> None:
                problem = why_not(self.path.partition("?")[0])
                if problem is None:
                    status, text = HTTPStatus.NOT_FOUND, "the probes are /livez and /readyz"
                else:
                    status, text = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK, problem or "ok"
                body = f"{text}\n".encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Logs nothing: probes come every few seconds."""

        return Handler
