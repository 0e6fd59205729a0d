"""The small change of proto-JSON: bytes, times, both letter cases."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")


def encode(value: object) -> bytes:
    """Return ``value`` as JSON."""
    return _encoder.encode(value)


def snake(name: str) -> str:
    """Return the snake_case spelling of a camelCase name."""
    return _HUMP.sub(lambda hump: "_" + hump[1].lower(), name)


def either(camel: T | None, snake_case: T | None) -> T | None:
    """Return the value that was sent, whichever spelling it came under."""
    return camel if camel is not None else snake_case


def integer(camel: int | str | None, snake_case: int | str | None) -> int | None:
    """Return an integer, whichever spelling it came under; int64 are sent as strings.

    Raises ValueError for a string that is no integer.
    """
    value = camel if camel is not None else snake_case
    return None if value is None else int(value)


def timestamp(seconds: float, *, digits: int = 9) -> str:
    """Return RFC 3339 with so many decimals and ``Z``, from seconds since the epoch."""
    whole = int(seconds)
    nanos = int((seconds - whole) * 1e9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{f'{nanos:09d}'[:digits]}Z"
