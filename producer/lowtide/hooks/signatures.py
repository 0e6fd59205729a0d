"""Signatures of events: whether a request comes from the provider, on its bytes as they came.

| signature | of | checked by |
|---|---|---|
| `v1,<base64>` | a static webhook | HMAC-SHA256 with a secret of the settings; there may be several |
| `v1a,<base64>` | a job with a webhook | Ed25519, with the provider's public keys |
| a JSON Web Token | a job with a webhook | RS256, with the provider's public keys; audience and expiry |

The first two sign id, time and body. The token signs none of them, so that an event under it proves less: one more
reason why an event is only a hint.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md and
https://ai.google.dev/gemini-api/docs/webhooks
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lowtide.hooks.key_sets import KeySet

TOLERANCE_SECONDS = 300.0
_MOST_ID_CHARS = 256
_MOST_SIGNATURE_CHARS = 8192
_MOST_SIGNATURES = 16
_NO_DATE = 253_402_300_800
"""The year 10000, in Unix seconds: no calendar has it, so a number from there on is no date."""


class Refused(Exception):
    """A request that is not an event of the provider. `status` is the HTTP status of the answer."""

    def __init__(self, reason: str, status: int = 400) -> None:
        self.status = status
        super().__init__(reason)


class Stamp(NamedTuple):
    """The headers of an event, checked in form and in time."""

    id: str
    timestamp: str
    signature: str

    def signed(self, body: bytes) -> bytes:
        """Returns the bytes that are signed."""
        return f"{self.id}.{self.timestamp}.".encode() + body


def read_stamp(headers: Mapping[str, str], now: float) -> Stamp:
    """Returns the headers of an event. Raises `Refused` for headers that no signature can make valid."""
    stamp = Stamp(*(headers.get(f"webhook-{name}", "") for name in Stamp._fields))
    if not 0 < len(stamp.id) <= _MOST_ID_CHARS or not (stamp.id.isascii() and stamp.id.isprintable()):
        raise Refused("the header webhook-id is missing or malformed")
    if not (stamp.timestamp.isascii() and stamp.timestamp.isdecimal() and len(stamp.timestamp) <= 12):
        raise Refused("the header webhook-timestamp is missing or malformed")
    if not 0 < len(stamp.signature) <= _MOST_SIGNATURE_CHARS:
        raise Refused("the header webhook-signature is missing or too long")
    if abs(now - int(stamp.timestamp)) > TOLERANCE_SECONDS:
        raise Refused("the event is too old, or of the future; check the clock of this server")
    return stamp


class Verifier:
    """The check of signatures.

    - `secrets`: keys of static webhooks, as bytes.
    - `keys`: public keys of the provider; None: only static webhooks are accepted.
    - `audience`: audience of a JSON Web Token; None: none is accepted.
    """

    def __init__(self, secrets: Sequence[bytes], keys: KeySet | None, audience: str | None) -> None:
        self._secrets = secrets
        self._keys = keys
        self._audience = audience

    async def verify(self, stamp: Stamp, body: bytes) -> None:
        """Returns if one signature is valid. Raises `Refused`, and `KeysUnavailable` where that cannot be known."""
        signatures = stamp.signature.split()[:_MOST_SIGNATURES]
        if self._is_static(stamp, body, signatures) or await self._is_dynamic(stamp, body, signatures):
            return
        raise Refused("no signature is valid", 401)

    def _is_static(self, stamp: Stamp, body: bytes, signatures: Sequence[str]) -> bool:
        given = [decoded for each in signatures if (decoded := _after("v1,", each)) is not None]
        wanted = [hmac.new(secret, stamp.signed(body), hashlib.sha256).digest() for secret in self._secrets if given]
        return any(hmac.compare_digest(one, other) for one in given for other in wanted)

    async def _is_dynamic(self, stamp: Stamp, body: bytes, signatures: Sequence[str]) -> bool:
        if self._keys is None:
            return False
        for each in signatures:
            signature = _after("v1a,", each)
            if signature is not None:
                if await self._keys.find(_signer(signature, stamp.signed(body))) is not None:
                    return True
            elif each.count(".") == 2 and self._audience is not None:
                await verify_token(each, self._keys, self._audience)
                return True
        return False


def _after(version: str, signature: str) -> bytes | None:
    """The bytes of a signature of this version; None for one of another, or that is not base64."""
    if not signature.startswith(version):
        return None
    try:
        return base64.b64decode(signature.removeprefix(version), validate=True)
    except ValueError:
        return None


def _signer(signature: bytes, signed: bytes) -> Callable[[jwt.PyJWK], bool]:
    def fits(key: jwt.PyJWK) -> bool:
        if not isinstance(key.key, Ed25519PublicKey):
            return False
        try:
            key.key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    return fits


async def verify_token(token: str, keys: KeySet, audience: str, *, issuers: Sequence[str] = ()) -> dict[str, object]:
    """Returns the claims of a JSON Web Token (RS256) that is meant for `audience` and has not expired.

    - `issuers`: the issuers that are accepted; empty: any whose key is among `keys`.

    Raises `Refused`, and `KeysUnavailable`.
    """
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        key = await keys.find(lambda one: one.key_id == kid and one.algorithm_name == "RS256")
        if key is None:
            raise Refused("the token is signed by an unknown key", 401)
        claims: dict[str, object] = jwt.decode(
            token, key, algorithms=["RS256"], audience=audience, leeway=30, options={"require": ["aud", "exp"]}
        )
    except jwt.PyJWTError as error:
        raise Refused(f"the token is not valid: {type(error).__name__}", 401) from None
    if not all(_is_date(claims[name]) for name in ("exp", "nbf", "iat") if name in claims):
        raise Refused("the token has a time that is no number of seconds", 401)
    if issuers and claims.get("iss") not in issuers:
        raise Refused("the token is of another issuer", 401)
    return claims


def _is_date(claim: object) -> bool:
    """Whether a claim is a time as RFC 7519 has it. PyJWT also takes text, truth values, and times that never come."""
    return isinstance(claim, int | float) and not isinstance(claim, bool) and 0 <= claim < _NO_DATE
