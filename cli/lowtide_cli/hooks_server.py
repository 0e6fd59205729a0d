"""The HTTP server of `lowtide hooks serve`. It needs the extra `hooks`."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

_MOST_CONNECTIONS = 512
"""Any more are answered 503, and the provider sends the event again."""
_MOST_HEAD_BYTES = 32 << 10
_IDLE_SECONDS = 10.0
"""A connection on which no request begins for so long is closed, in seconds, within twice this time."""


def serve_hooks(application: ASGIApp, listener: socket.socket) -> None:
    """Serves until the process is interrupted."""
    config = uvicorn.Config(
        application,
        http=ImpatientConnection,
        ws="none",
        h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
        lifespan="off",
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=5,
        log_level="warning",
    )
    uvicorn.Server(config).run(sockets=[listener])


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
