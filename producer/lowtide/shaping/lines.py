"""Decodes the JSON that users write: one value, or lines of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from lowtide.errors import InvalidRequest
from lowtide.shaping.files import AN_ARRAY, why_no_json

_decode = msgspec.json.Decoder().decode


def json_lines(lines: Iterable[bytes], first: int = 0) -> Iterator[tuple[int, Any]]:
    """Decodes JSONL. Yields the number and the value of each line that is not empty.

    `first` is the number of the first line. Raises `InvalidRequest`, with its position, for a line that is not JSON.
    """
    for number, line in enumerate(lines, first):
        if text := line.strip():
            value = json_value(text, number)
            if isinstance(value, list):
                raise InvalidRequest(AN_ARRAY, field="line", position=number)
            yield number, value


def json_value(text: bytes | str, position: int, field: str = "line") -> Any:
    """Decodes JSON that a user wrote. Raises `InvalidRequest` with this position and field."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(why_no_json(text, error), field=field, position=position) from error
