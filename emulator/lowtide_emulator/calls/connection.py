"""The TCP connection of a request, for faults that no HTTP reply can express.

ASGI cannot close a connection. Uvicorn's `send` is a method of an object that has the transport, so the outermost
middleware gets the transport from there and passes it on in the scope.
"""

from __future__ import annotations

import asyncio
from typing import cast

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lowtide_emulator.engine import Stats

SCOPE_KEY = "lowtide_emulator.connection"


class Connection:
    """The connection of one request.

    body_limit: the number of bytes of the reply's body after which the connection is closed; None for no limit.
    headers: headers of the reply that replace its own; None removes one.
    closed: whether the connection is closed.
    """

    def __init__(self, send: Send) -> None:
        cycle = getattr(send, "__self__", None)
        self._transport = cast("asyncio.Transport | None", getattr(cycle, "transport", None))
        self.body_limit: int | None = None
        self.headers: dict[str, str | None] = {}
        self.closed = False

    def abort(self) -> None:
        """Closes the connection at once; data that is not sent yet is lost."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Closes the connection after the data that is already written."""
        self.closed = True
        if self._transport is not None:
            self._transport.close()


class ConnectionMiddleware:
    """The outermost middleware: puts the connection into the scope and counts bytes."""

    def __init__(self, app: ASGIApp, stats: Stats) -> None:
        self._app = app
        self._stats = stats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = scope[SCOPE_KEY] = Connection(send)
        stats = self._stats
        sent = 0

        async def counting_receive() -> Message:
            message = await receive()
            stats.received(len(message.get("body", b"")))
            return message

        async def limited_send(message: Message) -> None:
            nonlocal sent
            if connection.closed:
                return
            if message["type"] == "http.response.start":
                stats.reply(message["status"])
                await send(_with_headers(message, connection.headers))
                return
            body = message.get("body", b"")
            limit = connection.body_limit
            cut = limit is not None and sent + len(body) > limit
            if limit is not None and cut:
                body = body[: limit - sent]
                message = {"type": "http.response.body", "body": body, "more_body": True}
            sent += len(body)
            stats.sent(len(body))
            await send(message)
            if cut:
                connection.close()

        await self._app(scope, counting_receive, limited_send)
        while connection.closed:
            # Uvicorn must notice the end of the connection before this returns. Otherwise it logs that the reply is
            # missing.
            if (await receive())["type"] == "http.disconnect":
                return


def _with_headers(message: Message, changes: dict[str, str | None]) -> Message:
    """Returns the start of a reply with other headers."""
    if not changes:
        return message
    headers = MutableHeaders(raw=list(message["headers"]))
    for name, value in changes.items():
        if value is None:
            del headers[name]
        else:
            headers[name] = value
    return {**message, "headers": headers.raw}


class DroppedConnection(Response):
    """A closed connection in place of a reply."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Closes the connection."""
        del receive, send
        scope[SCOPE_KEY].abort()
