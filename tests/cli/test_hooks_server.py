"""The server of `lowtide hooks serve` gives no connection away for good, and refuses what is too large."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tests.waiting import wait_until

from lowtide_cli import hooks_server

REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"


async def echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


async def alive(_: Request) -> Response:
    return PlainTextResponse("alive")


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(hooks_server, "_IDLE_SECONDS", 1.0)
    made: list[uvicorn.Server] = []

    class Server(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            made.append(self)

    monkeypatch.setattr(uvicorn, "Server", Server)
    application = Starlette(routes=[Route("/", echo, methods=["POST"]), Route("/livez", alive)])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=hooks_server.serve_hooks, args=(application, listener), daemon=True)
        thread.start()
        wait_until(lambda: made and made[0].started, what="the server listens")
        yield listener.getsockname()[1]
        made[0].should_exit = True
        thread.join()


def connected(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=180)
    connection.sendall(sent)
    return connection


def answer(connection: socket.socket, *, until: bytes) -> bytes:
    """Reads until these bytes have come."""
    got = b""
    while until not in got:
        got += (piece := connection.recv(1 << 16))
        assert piece, f"closed after {got!r}"
    return got


def await_end(connection: socket.socket) -> None:
    """Returns when the server has closed it."""
    try:
        assert connection.recv(1 << 16) == b""
    except ConnectionResetError:
        return


HEADS = (b"", b"POST / HT", b"POST / HTTP/1.1\r\nhost: x\r\nwebhook-id")


def test_clients_that_send_no_whole_head_lose_their_connections(port: int) -> None:
    with ExitStack() as opened:
        fresh = [opened.enter_context(connected(port, head)) for head in HEADS]
        used = [opened.enter_context(connected(port, REQUEST + b"abcd" + head)) for head in HEADS]

        for connection in used:
            answer(connection, until=b"abcd")
        for connection in fresh + used:
            await_end(connection)


def test_a_request_whose_body_is_slow_is_not_cut_off(port: int) -> None:
    with connected(port, REQUEST + b"ab") as slow:
        for _ in range(2):
            with connected(port, b"") as idle:
                await_end(idle)

        slow.sendall(b"cd")

        answer(slow, until=b"abcd")


def test_probes_are_answered_while_other_requests_are_refused(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_server, "_MOST_CONNECTIONS", 3)
    with ExitStack() as opened:
        for _ in range(2):
            opened.enter_context(connected(port, REQUEST))

        with connected(port, REQUEST) as event, connected(port, b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n") as probe:
            assert answer(event, until=b"\r\n").startswith(b"HTTP/1.1 503")
            assert answer(probe, until=b"alive").startswith(b"HTTP/1.1 200")


def test_a_flood_of_headers_is_refused(port: int) -> None:
    flood = b"POST / HTTP/1.1\r\nhost: x\r\n" + b"x-flood: 1\r\n" * 4000
    with connected(port, flood) as connection:
        assert answer(connection, until=b"\r\n").startswith(b"HTTP/1.1 400")
