"""The application `lowtide.hooks` behind a real HTTP server in this process, and requests to it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import uvicorn
from starlette.types import ASGIApp

from tests.waiting import wait_until

SECRET = "whsec_" + base64.b64encode(b"lowtide-hooks-test-secret-0123456789").decode()
_ids = itertools.count()


@contextmanager
def served(application: ASGIApp, port: int = 0) -> Iterator[str]:
    """Serves an application on this machine; yields its URL."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    config = uvicorn.Config(application, lifespan="off", log_config=None, timeout_graceful_shutdown=1, http="h11")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, what="the server has started")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class Reply(NamedTuple):
    """The answer to a request."""

    status: int
    text: str


def post(url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
    """Posts a body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=180)
    try:
        connection.request("POST", parts.path, body, dict(headers))
        response = connection.getresponse()
        return Reply(response.status, response.read().decode())
    finally:
        connection.close()


def event(kind: str = "batch.succeeded", **data: object) -> bytes:
    """The body of an event."""
    return json.dumps({"type": kind, "version": "v1", "timestamp": "2026-11-27T12:00:00Z", "data": data}).encode()


def new_id() -> str:
    """A webhook-id that no other request has."""
    return f"evt-{next(_ids)}"


def stamped(signature: str, *, identity: str | None = None, at: float | None = None) -> dict[str, str]:
    """The headers of an event with this signature."""
    return {
        "webhook-id": new_id() if identity is None else identity,
        "webhook-timestamp": str(int(time.time() if at is None else at)),
        "webhook-signature": signature,
    }


def signed_headers(body: bytes, *secrets: str, identity: str | None = None, at: float | None = None) -> dict[str, str]:
    """The headers of an event of a static webhook."""
    headers = stamped("", identity=identity, at=at)
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets or (SECRET,)]
    digests = [hmac.new(key, signed, hashlib.sha256).digest() for key in keys]
    headers["webhook-signature"] = " ".join("v1," + base64.b64encode(digest).decode() for digest in digests)
    return headers
