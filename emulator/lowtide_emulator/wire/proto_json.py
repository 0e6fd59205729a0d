"""Proto-JSON: encoding, times, integers, and field names in both spellings."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

import msgspec

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_UNKNOWN = re.compile(r"^Object contains unknown field `(.+?)`(?: - at `\$\.?(.*)`)?$")
_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")


def encode(value: object) -> bytes:
    """Returns `value` as JSON."""
    return _encoder.encode(value)


@lru_cache(maxsize=4096)
def snake(name: str) -> str:
    """Returns the snake_case spelling of a camelCase name."""
    return _HUMP.sub(lambda hump: "_" + hump[1].lower(), name)


def either(camel: T | None, snake_case: T | None) -> T | None:
    """Returns the value that was sent, under either spelling."""
    return camel if camel is not None else snake_case


def integer(camel: int | str | None, snake_case: int | str | None) -> int | None:
    """Returns the integer that was sent, under either spelling; an int64 is sent as a string.

    Raises ValueError for a string that is not an integer.
    """
    value = camel if camel is not None else snake_case
    return None if value is None else int(value)


def timestamp(seconds: float, *, digits: int = 9) -> str:
    """Returns a time in RFC 3339, in UTC.

    seconds: the time since the epoch.
    digits: the number of decimals.
    """
    whole = int(seconds)
    nanos = int((seconds - whole) * 1e9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{f'{nanos:09d}'[:digits]}Z"


def explain(error: msgspec.ValidationError) -> str:
    """Returns an error of msgspec in the words of the service."""
    unknown = _UNKNOWN.match(str(error))
    if unknown is None:
        return str(error)
    place = f" at '{snake(unknown[2])}'" if unknown[2] else ""
    return f'Unknown name "{unknown[1]}"{place}: Cannot find field.'
