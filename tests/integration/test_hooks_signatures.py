"""Signatures and tokens of events over real HTTP: a valid one is accepted, and a forged one changes nothing."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
from tests.hooks import SECRET, event, new_id, signed_headers, stamped
from tests.integration.hooked import AUDIENCE, BODY, HOUR, NAME, OLD_SECRET, Hooks, contents


def ed25519(hooked: Hooks, body: bytes, *, stranger: bool = False) -> dict[str, str]:
    headers = stamped("")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return headers | {"webhook-signature": hooked.keys.signer.ed25519_signature(signed, stranger=stranger)}


def token(hooked: Hooks, audience: str = AUDIENCE, *, stranger: bool = False) -> dict[str, str]:
    return stamped(hooked.keys.signer.token(audience, stranger=stranger))


Headers = Callable[[Hooks, bytes], dict[str, str]]
VALID: dict[str, Headers] = {
    "static": lambda _, body: signed_headers(body),
    "static-while-the-secret-is-rotated": lambda _, body: signed_headers(body, OLD_SECRET),
    "static-with-a-signature-of-an-unknown-secret-beside": lambda _, body: signed_headers(
        body, "whsec_" + base64.b64encode(bytes(32)).decode(), SECRET
    ),
    "ed25519": ed25519,
    "token": lambda hooked, _: token(hooked),
}


@pytest.mark.parametrize("headers", VALID.values(), ids=VALID)
def test_a_valid_event_makes_the_poll_of_its_job_due(hooked: Hooks, headers: Headers) -> None:
    body = event(id=f"batch_{NAME}")

    assert hooked.post(body, headers(hooked, body)).status == 204

    assert hooked.due_in() < 1


def claims(hooked: Hooks, **changes: object) -> dict[str, str]:
    """A token of the signer's with changed claims, or without those that are None."""
    all_claims: dict[str, object] = {"aud": AUDIENCE, "exp": int(time.time()) + 60, **changes}
    pair = hooked.keys.signer._pair()
    kept = {name: value for name, value in all_claims.items() if value is not None}
    return stamped(jwt.encode(kept, pair.rsa, algorithm="RS256", headers={"kid": pair.kid}))


def unsigned(hooked: Hooks, algorithm: str, key: str) -> dict[str, str]:
    """A token that anyone can make: without a signature, or by HMAC with what is public."""
    pair = hooked.keys.signer._pair()
    made = {"aud": AUDIENCE, "exp": int(time.time()) + 60}
    return stamped(jwt.encode(made, key, algorithm=algorithm, headers={"kid": pair.kid}))


REFUSED: dict[str, Callable[[Hooks], tuple[bytes, dict[str, str]]]] = {
    "no-headers": lambda _: (BODY, {}),
    "forged-static": lambda _: (BODY, signed_headers(event(id="batch_other"))),
    "unknown-secret": lambda _: (BODY, signed_headers(BODY, "whsec_" + base64.b64encode(bytes(32)).decode())),
    "another-id": lambda _: (BODY, signed_headers(BODY) | {"webhook-id": new_id()}),
    "another-time": lambda _: (BODY, signed_headers(BODY) | {"webhook-timestamp": str(int(time.time()) - 1)}),
    "too-old": lambda _: (BODY, signed_headers(BODY, at=time.time() - 320)),
    "of-the-future": lambda _: (BODY, signed_headers(BODY, at=time.time() + 320)),
    "no-number-as-time": lambda _: (BODY, signed_headers(BODY) | {"webhook-timestamp": "soon"}),
    "huge-time": lambda _: (BODY, signed_headers(BODY) | {"webhook-timestamp": "9" * 4000}),
    "empty-id": lambda _: (BODY, signed_headers(BODY, identity="")),
    "long-id": lambda _: (BODY, signed_headers(BODY, identity="x" * 300)),
    "no-base64": lambda _: (BODY, stamped("v1,??? v1a,??? v1, v1a,")),
    "unknown-version": lambda _: (BODY, stamped("v9,abc")),
    "long-signature": lambda _: (BODY, stamped("v1," + "A" * 9000)),
    "ed25519-by-a-stranger": lambda hooked: (BODY, ed25519(hooked, BODY, stranger=True)),
    "ed25519-of-another-body": lambda hooked: (BODY, ed25519(hooked, event(id="batch_other"))),
    "token-by-a-stranger": lambda hooked: (BODY, token(hooked, stranger=True)),
    "token-for-another": lambda hooked: (BODY, token(hooked, "https://elsewhere.example/")),
    "token-that-has-expired": lambda hooked: (BODY, claims(hooked, exp=int(time.time()) - 60)),
    "token-without-an-end": lambda hooked: (BODY, claims(hooked, exp=None)),
    "token-for-nobody": lambda hooked: (BODY, claims(hooked, aud=None)),
    "token-without-signature": lambda hooked: (BODY, unsigned(hooked, "none", "")),
    "token-by-hmac": lambda hooked: (BODY, unsigned(hooked, "HS256", "a public key that anyone can read, as text")),
    "token-of-dots": lambda _: (BODY, stamped("..")),
    "no-json": lambda _: (b"{", signed_headers(b"{")),
    "no-object": lambda _: (b"[]", signed_headers(b"[]")),
    "no-type": lambda _: (b'{"data": {}}', signed_headers(b'{"data": {}}')),
    "no-data": lambda _: (b'{"type": "batch.failed"}', signed_headers(b'{"type": "batch.failed"}')),
    "no-utf8": lambda _: (b"\xff\xfe", signed_headers(b"\xff\xfe")),
    "deep": lambda _: (b"[" * 60_000, signed_headers(b"[" * 60_000)),
    "too-large": lambda _: (b"x" * 70_000, signed_headers(b"x" * 70_000)),
}


@pytest.mark.parametrize("request_of", REFUSED.values(), ids=REFUSED)
def test_a_forged_or_malformed_request_is_refused_and_changes_nothing(
    hooked: Hooks, request_of: Callable[[Hooks], tuple[bytes, dict[str, str]]]
) -> None:
    before = contents(hooked.stack.redis)

    reply = hooked.post(*request_of(hooked))

    assert 400 <= reply.status < 500
    assert contents(hooked.stack.redis) == before


NUMBERS = {"infinite": float("inf"), "a-list": [1], "true": True, "huge": 10**400}
ODD_CLAIMS: dict[str, dict[str, object]] = {
    **{f"{name}-{kind}": {name: value} for name in ("exp", "iat", "nbf") for kind, value in NUMBERS.items()},
    "exp-as-text": {"exp": "99999999999"},
    "exp-of-the-year-10000": {"exp": 253_402_300_800},
    "exp-no-number": {"exp": float("nan")},
    "iat-null": {"iat": None},
    "iat-before-all-time": {"iat": -(10**400)},
    "aud-nested": {"aud": [[AUDIENCE]]},
    "aud-true": {"aud": True},
    "aud-with-a-number": {"aud": [1, AUDIENCE]},
    "aud-with-a-name": {"aud": {AUDIENCE: AUDIENCE}},
    "sub-number": {"sub": 5},
    "jti-list": {"jti": ["a"]},
}


def signed_as_is(hooked: Hooks, payload: bytes) -> dict[str, str]:
    """A token that the real key has signed, whatever it says."""
    pair = hooked.keys.signer._pair()
    return stamped(jwt.api_jws.encode(payload, pair.rsa, algorithm="RS256", headers={"kid": pair.kid}))


@pytest.mark.parametrize("odd", ODD_CLAIMS.values(), ids=ODD_CLAIMS)
def test_a_token_of_the_right_key_with_an_odd_claim_is_refused(hooked: Hooks, odd: dict[str, object]) -> None:
    made = {"aud": AUDIENCE, "exp": int(time.time()) + 60, **odd}

    assert hooked.post(BODY, signed_as_is(hooked, json.dumps(made).encode())).status == 401
    assert hooked.due_in() > HOUR / 2


def test_a_token_of_the_right_key_without_claims_is_refused(hooked: Hooks) -> None:
    deep = b'{"x":' + b"[" * 2500 + b"]" * 2500 + b"}"
    payloads = [b"", b"[]", b"null", b"7", b"\xff", b'{"exp": ' + b"9" * 5000 + b"}", deep]

    assert {hooked.post(BODY, signed_as_is(hooked, payload)).status for payload in payloads} == {401}


def test_a_token_needs_no_time_of_issue(hooked: Hooks) -> None:
    made = {"aud": ["others", AUDIENCE], "exp": time.time() + 60.5}

    assert hooked.post(BODY, signed_as_is(hooked, json.dumps(made).encode())).status == 204


def test_unknown_keys_cause_no_flood_of_fetches(hooked: Hooks) -> None:
    hooked.post(BODY, token(hooked))
    before = hooked.keys.fetched

    with ThreadPoolExecutor(8) as threads:
        statuses = set(threads.map(lambda _: hooked.post(BODY, token(hooked, stranger=True)).status, range(40)))

    assert statuses == {401}
    assert hooked.keys.fetched - before <= 1
