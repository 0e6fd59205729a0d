from __future__ import annotations

import pytest

from lowtide import InvalidRequest
from lowtide.shaping import json_lines


def test_lines_are_numbered_as_in_the_file_and_empty_ones_left_out() -> None:
    content = [b'{"a":1}\n', b"\n", b"  \t\r\n", b' {"b":2} \r\n', b"3"]
    assert list(json_lines(content)) == [(0, {"a": 1}), (3, {"b": 2}), (4, 3)]


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        b"{",
        b'{"a":1}{"b":2}',
        b"{'a':1}",
        b"NaN",
        b"1e999",
        b'{"a":"\xff"}',
        b"\xff\xfe",
        b'{"a":"\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b"\x00",
        b'{"a":1,}',
    ],
)
def test_a_line_that_is_no_json_is_refused_with_its_number(line: bytes) -> None:
    found = json_lines([b"{}\n", b"\n", line + b"\n"])
    assert next(found) == (0, {})
    with pytest.raises(InvalidRequest, match=r"not JSON|not UTF-8|on one line|not a JSON array") as caught:
        next(found)
    assert (caught.value.position, caught.value.field) == (2, "line")
