"""Signatures of events: HMAC for static webhooks, Ed25519 or a JSON Web Token for those of single batches."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

ISSUER = "https://generativelanguage.googleapis.com"
_TOKEN_SECONDS = 300


def new_secret() -> str:
    """Returns a new secret of a static webhook."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def hmac_signatures(keys: Sequence[str], signed: bytes) -> str:
    """Returns the signatures by several secrets, as one header."""
    return " ".join(
        "v1," + _base64(hmac.new(base64.b64decode(key.removeprefix("whsec_")), signed, hashlib.sha256).digest())
        for key in keys
    )


class _Pair(NamedTuple):
    """The two private keys of one rotation, under one id."""

    kid: str
    rsa: RSAPrivateKey
    ed25519: Ed25519PrivateKey


def _new_pair() -> _Pair:
    rsa = generate_private_key(public_exponent=65537, key_size=2048)
    return _Pair(secrets.token_hex(8), rsa, Ed25519PrivateKey.generate())


class Signer:
    """The private keys of the service. They are made at first use. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pairs: list[_Pair] = []
        self._stranger: _Pair | None = None

    def rotate(self) -> None:
        """Signs with new keys from now on. The public keys of the last two rotations are published."""
        with self._lock:
            self._pairs = [*self._pairs[-1:], _new_pair()]

    def key_set(self) -> dict[str, object]:
        """Returns the public keys (JWKS)."""
        self._pair()
        keys: list[dict[str, Any]] = []
        for pair in self._pairs:
            rsa = json.loads(RSAAlgorithm.to_jwk(pair.rsa.public_key()))
            okp = json.loads(OKPAlgorithm.to_jwk(pair.ed25519.public_key()))
            keys += [
                {"kid": pair.kid, "alg": "RS256", "use": "sig", **rsa},
                {"kid": f"{pair.kid}-ed", "alg": "EdDSA", "use": "sig", **okp},
            ]
        return {"keys": keys}

    def ed25519_signature(self, signed: bytes, *, stranger: bool = False) -> str:
        """Returns the `v1a` signature of an event; by a key that is not published if `stranger` is true."""
        return "v1a," + _base64(self._pair(stranger=stranger).ed25519.sign(signed))

    def token(self, audience: str, *, stranger: bool = False) -> str:
        """Returns a JSON Web Token for an audience; by a key that is not published if `stranger` is true."""
        pair, now = self._pair(stranger=stranger), int(time.time())
        claims = {"iss": ISSUER, "aud": audience, "iat": now, "exp": now + _TOKEN_SECONDS}
        return jwt.encode(claims, pair.rsa, algorithm="RS256", headers={"kid": pair.kid})

    def _pair(self, *, stranger: bool = False) -> _Pair:
        with self._lock:
            if stranger:
                self._stranger = self._stranger or _new_pair()
                return self._stranger
            if not self._pairs:
                self._pairs = [_new_pair()]
            return self._pairs[-1]


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
