"""Public keys of a signer (JSON Web Key Sets), fetched with limits and kept for an hour.

Source: https://www.rfc-editor.org/rfc/rfc7517
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Timer
from urllib.parse import urlsplit

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

log = logging.getLogger("lowtide.hooks")

_MOST_BYTES = 256 << 10
_MOST_KEYS = 64
_SECONDS = 5.0
"""Longest time for one fetch as a whole, in seconds."""
_FRESH_SECONDS = 3600.0
_PAUSE_SECONDS = 60.0
"""Shortest time between two fetches, in seconds: unknown keys, which anyone can name, cause no more."""


class KeysUnavailable(Exception):
    """The keys could not be fetched, and none are known from before."""


class KeySet:
    """The keys behind one URL. The coroutines of one event loop may share it.

    - `url`: an `https://` URL, or one of this machine. Redirects are not followed.
    """

    def __init__(self, url: str, now: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._now = now
        self._keys: list[jwt.PyJWK] = []
        self._fetched: float | None = None
        self._tried: float | None = None
        self._lock = asyncio.Lock()

    async def find(self, fits: Callable[[jwt.PyJWK], bool]) -> jwt.PyJWK | None:
        """Returns the first key that fits. Where none does, the keys are fetched again, at most once a minute.

        Raises `KeysUnavailable`.
        """
        if self._fetched is None or self._now() - self._fetched > _FRESH_SECONDS:
            await self._refresh()
        found = next(filter(fits, self._keys), None)
        if found is None:
            await self._refresh()
            found = next(filter(fits, self._keys), None)
        if found is None and self._fetched is None:
            raise KeysUnavailable("the keys of the signer cannot be fetched")
        return found

    async def _refresh(self) -> None:
        """Fetches the keys, unless that was tried within the last minute. Where it fails, the old ones stay."""
        async with self._lock:
            if self._tried is not None and self._now() - self._tried < _PAUSE_SECONDS:
                return
            self._tried = self._now()
            try:
                self._keys = _parsed(await asyncio.wait_for(asyncio.to_thread(_fetch, self._url), 2 * _SECONDS))
            except (OSError, ValueError, http.client.HTTPException) as error:
                log.warning("the keys at %s cannot be fetched: %s", self._url, error)
                return
            self._fetched = self._now()


def _fetch(url: str) -> bytes:
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection = (
        http.client.HTTPSConnection(host, parts.port, timeout=_SECONDS, context=ssl.create_default_context())
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, parts.port, timeout=_SECONDS)
    )
    # A timeout of the socket bounds one step only, and a slow server takes many.
    end = Timer(_SECONDS, lambda: _cut(connection))
    end.daemon = True
    end.start()
    try:
        connection.request("GET", f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}")
        with connection.getresponse() as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            body = response.read(_MOST_BYTES + 1)
        if len(body) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        return body
    finally:
        end.cancel()
        connection.close()


def _cut(connection: http.client.HTTPConnection) -> None:
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


class _Set(msgspec.Struct):
    keys: list[object] = []


_decode = msgspec.json.Decoder(_Set).decode


def _parsed(body: bytes) -> list[jwt.PyJWK]:
    """The keys that can be used; one that cannot stops no other."""
    try:
        found = _decode(body).keys
    except RecursionError:
        raise ValueError("nested too deeply") from None
    keys = []
    for fields in found[:_MOST_KEYS]:
        try:
            keys.append(_usable(fields))
        except Exception as error:  # noqa: BLE001 - each field of a key may have any form, and each fails in its own way
            log.warning("a key of the signer cannot be used: %s", type(error).__name__)
    if not keys:
        raise ValueError("no usable key")
    return keys


def _usable(fields: object) -> jwt.PyJWK:
    """A public key that verifies events. Any error means that it cannot."""
    if not isinstance(fields, dict):
        raise TypeError("no object")
    key = jwt.PyJWK.from_dict(fields)
    if not isinstance(key.key, Ed25519PublicKey | RSAPublicKey):
        raise TypeError("no public key of a kind that signs events")
    if problem := key.Algorithm.check_key_length(key.key):
        raise ValueError(problem)
    return key
