"""Public keys: fetched with limits, kept when a fetch fails, and asked for at most once a minute."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lowtide.hooks import key_sets
from lowtide.hooks.key_sets import KeySet, KeysUnavailable, _parsed
from lowtide.hooks.signatures import _signer
from lowtide_emulator.webhooks.signing import Signer

SIGNER = Signer()
Reply = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers each request by `reply`."""

    def __init__(self) -> None:
        self.reply: Reply = good
        self.requests = 0
        self.over = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                server.reply(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/keys"


def answer(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def good(handler: BaseHTTPRequestHandler) -> None:
    answer(handler, json.dumps(SIGNER.key_set()).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.over.set()
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def anything(_: jwt.PyJWK) -> bool:
    return True


def nothing(_: jwt.PyJWK) -> bool:
    return False


REPLIES: dict[str, Reply] = {
    "an-error": lambda handler: answer(handler, b"{}", 500),
    "a-redirect": lambda handler: answer(handler, b"", 302, Location="/keys"),
    "no-json": lambda handler: answer(handler, b"<html>"),
    "no-keys": lambda handler: answer(handler, b'{"keys": []}'),
    "no-list": lambda handler: answer(handler, b'{"keys": 7}'),
    "no-usable-key": lambda handler: answer(handler, b'{"keys": [{"kty": "RSA"}, {"kty": "odd"}, {}]}'),
    "too-long": lambda handler: answer(handler, b'{"keys": [' + b" " * (300 << 10) + b"]}"),
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_a_bad_reply_is_no_key_set_and_does_no_harm_to_the_keys_that_are_known(server: Server, reply: Reply) -> None:
    now = [0.0]

    async def tried() -> None:
        server.reply = reply
        fresh, known = KeySet(server.url), KeySet(server.url, lambda: now[0])
        with pytest.raises(KeysUnavailable):
            await fresh.find(anything)
        server.reply = good
        assert await known.find(anything)
        now[0] = 4000.0
        server.reply = reply
        assert await known.find(anything)

    asyncio.run(tried())
    # A redirect is not followed.
    assert server.requests == 3


def test_a_key_that_cannot_be_used_stops_no_other(server: Server) -> None:
    keys = {"keys": [{"kty": "odd"}, *SIGNER.key_set()["keys"]]}  # type: ignore[misc]
    server.reply = lambda handler: answer(handler, json.dumps(keys).encode())

    assert asyncio.run(KeySet(server.url).find(lambda key: key.key_type == "OKP"))


ODD_KEYS = {
    "no-algorithm": {"kty": "RSA", "alg": "none", "n": "AQAB", "e": "AQAB"},
    "number-as-modulus": {"kty": "RSA", "n": 1, "e": "AQAB"},
    "list-as-type": {"kty": ["RSA"]},
    "short-modulus": {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
    "symmetric": {"kty": "oct", "k": "AQAB"},
    "number-as-symmetric": {"kty": "oct", "k": 5},
    "number": 7,
    "null": None,
}


@pytest.mark.parametrize("odd", ODD_KEYS.values(), ids=ODD_KEYS)
def test_an_odd_key_before_all_others_stops_none(server: Server, odd: object) -> None:
    keys = {"version": 3, "keys": [odd, *good_keys()]}
    server.reply = lambda handler: answer(handler, json.dumps(keys).encode())
    found: list[str | None] = []

    def noted(key: jwt.PyJWK) -> bool:
        found.append(key.key_id)
        return len(found) == len(good_keys())

    assert asyncio.run(KeySet(server.url).find(noted))
    assert found == [key["kid"] for key in good_keys()]


def good_keys() -> list[dict[str, object]]:
    return SIGNER.key_set()["keys"]  # type: ignore[return-value]


FIELDS = ["kty", "alg", "kid", "use", "key_ops", "crv", "oth", "x5c", *"xynedkpq", "dp", "dq", "qi"]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.binary(max_size=300).map(lambda octets: base64.urlsafe_b64encode(octets).rstrip(b"=").decode()),
    st.sampled_from(["none", "HS256", "RS256", "RS512", "PS256", "EdDSA", "ES256", "RSA", "oct", "OKP", "EC", "P-256"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(base=st.integers(0, 2), changes=st.dictionaries(st.sampled_from(FIELDS), ODD, min_size=1, max_size=4))
def test_no_form_of_any_field_stops_the_other_keys_or_the_check_of_a_signature(
    base: int, changes: dict[str, object]
) -> None:
    odd = {**(good_keys()[base] if base < 2 else {}), "kid": "odd", **changes}

    keys = _parsed(json.dumps({"keys": [odd, *good_keys()]}).encode())

    assert [key.key_id for key in keys][-2:] == [key["kid"] for key in good_keys()]
    for key in keys:
        assert _signer(bytes(64), b"signed by nobody")(key) is False
        with suppress(jwt.PyJWTError):
            jwt.decode(SIGNER.token("a service"), key, algorithms=["RS256"], audience="a service")


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.recursive(ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)))
def test_a_set_in_any_form_has_keys_or_is_refused_as_a_value(odd: object) -> None:
    for whole in (odd, {"keys": odd}, {"keys": [odd]}):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is that of msgspec, or "no usable key"
            _parsed(json.dumps(whole).encode())


def test_a_set_that_is_nested_too_deeply_is_refused_as_a_value() -> None:
    with pytest.raises(ValueError, match="too deeply"):
        _parsed(b'{"keys":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_an_unknown_key_is_asked_for_at_most_once_a_minute(server: Server) -> None:
    now = [0.0]

    async def asked() -> list[int]:
        keys = KeySet(server.url, lambda: now[0])
        counts = []
        for moment in (0.0, 1.0, 59.0, 61.0, 62.0):
            now[0] = moment
            assert await keys.find(nothing) is None
            counts.append(server.requests)
        return counts

    assert asyncio.run(asked()) == [1, 1, 1, 2, 2]


def test_a_reply_that_drips_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_sets, "_SECONDS", 0.3)

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        while not server.over.wait(0.05):
            try:
                handler.wfile.write(b"X-Drip: 1\r\n")
                handler.wfile.flush()
            except OSError:
                return

    server.reply = drip

    with pytest.raises(KeysUnavailable):
        asyncio.run(KeySet(server.url).find(anything))
