"""The HTTP server of `lowtide hooks serve`. It needs the extra `hooks`."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Collection

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from lowtide.text import counted

log = logging.getLogger("lowtide.hooks")
_REFUSED = {"event": "hooks.refused"}

_MOST_CONNECTIONS = 512
"""Requests on any more are answered 503, and the provider sends the event again."""
_PROBES = frozenset({"/livez", "/readyz"})
_MOST_PROBES = 32
"""Probes at once that are answered however many connections there are: they cost little, and a flood of events must not
have the process restarted."""
_REPORT_SECONDS = 60.0
_MOST_HEAD_BYTES = 32 << 10
_IDLE_SECONDS = 10.0
"""A connection on which no request begins for so long is closed, in seconds, within twice this time."""


def serve_hooks(application: ASGIApp, listener: socket.socket) -> None:
    """Serves until the process is interrupted."""
    bounded = BoundedApplication(application)
    config = uvicorn.Config(
        bounded,
        http=ImpatientConnection,
        ws="none",
        h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
        lifespan="off",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        log_level="warning",
    )
    server = uvicorn.Server(config)
    bounded.connections = server.server_state.connections
    server.run(sockets=[listener])


class BoundedApplication:
    """An application that refuses requests while there are too many connections, and goes on to answer its probes.

    uvicorn's own limit refuses the probes too.
    """

    def __init__(self, application: ASGIApp) -> None:
        self._application = application
        self.connections: Collection[object] = ()
        """Those of the server, this one included."""
        self._probes = 0
        self._refused = 0
        self._reported = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        crowded = len(self.connections) >= _MOST_CONNECTIONS
        if scope.get("path") not in _PROBES:
            await (self._refuse if crowded else self._application)(scope, receive, send)
        elif self._probes >= _MOST_PROBES and crowded:
            await self._refuse(scope, receive, send)
        else:
            self._probes += 1
            try:
                await self._application(scope, receive, send)
            finally:
                self._probes -= 1

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._refused += 1
        now = time.monotonic()
        if now - self._reported > _REPORT_SECONDS:
            told = counted(self._refused, "request was", "requests were")
            log.warning("%s not taken: there are too many connections", told, extra=_REFUSED)
            self._refused, self._reported = 0, now
        busy = PlainTextResponse("too many connections\n", 503, headers={"retry-after": "1", "connection": "close"})
        await busy(scope, receive, send)


class ImpatientConnection(H11Protocol):
    """A connection that is closed where its client sends no whole head of a request.

    uvicorn waits for it without end. So clients that are slow, or gone, would take all connections in the long run.
    The application itself bounds the time of a body.
    """

    _timer: asyncio.TimerHandle | None = None
    _seen: object = None
    """The last request at the check before."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to check for a request."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(_IDLE_SECONDS, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the checks."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _check(self) -> None:
        last = self.cycle
        if last is self._seen and (last is None or last.response_complete):
            self.transport.abort()
            return
        self._seen = last
        self._timer = self.loop.call_later(_IDLE_SECONDS, self._check)
