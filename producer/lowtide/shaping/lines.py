"""Decodes the JSON that users write: one value, or lines of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from lowtide.errors import InvalidRequest

_decode = msgspec.json.Decoder().decode


def json_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """Decodes JSONL: each line's number (0-based) and value, empty lines left out.

    Raises `InvalidRequest` naming the line that is no JSON.
    """
    for number, line in enumerate(lines):
        if text := line.strip():
            yield number, json_value(text, number)


def json_value(text: bytes | str, position: int, field: str = "line") -> Any:
    """Decodes JSON that a user wrote. Raises `InvalidRequest`."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"not JSON: {error}", field=field, position=position) from error
