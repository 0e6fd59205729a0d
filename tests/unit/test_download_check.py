from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide_worker.output import DownloadCheck, PieceWriter, SegmentCutter
from lowtide_worker.providers import IncompleteOutput

ROW = b'{"key": "r1.x", "response": {"candidates": [{"text": "{ \\n {"}]}}'


def chunks(body: bytes, size: int) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


def taken(body: bytes, expected: int, size: int = 1 << 20) -> bytes:
    """The bytes that got through; raises what the check raises."""
    passed: list[bytes] = []
    check = DownloadCheck(passed.append, expected=expected)
    for chunk in chunks(body, size):
        check.write(chunk)
    check.finish()
    return b"".join(passed)


@given(st.integers(1, 40), st.integers(1, 90), st.booleans())
def test_rows_are_counted_however_the_bytes_arrive(rows: int, size: int, newline: bool) -> None:
    body = b"\n".join([ROW] * rows) + b"\n" * newline

    assert taken(body, rows, size) == body
    with pytest.raises(IncompleteOutput, match=f"{rows} of {rows + 1} rows"):
        taken(body, rows + 1, size)


ERROR = {"error": {"code": 503, "message": "try later", "details": [{"a": {"b": 1}}, {"c": 2}]}}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n\n",
        b"<!doctype html><html>{}</html>",
        b"  \n<html>\n{\n</html>",
        b"null",
        b"[]",
        b"\xef\xbb\xbf{}",
        json.dumps(ERROR).encode(),
        json.dumps(ERROR, indent=2).encode(),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_what_is_something_else_is_doubted(body: bytes, size: int) -> None:
    with pytest.raises(IncompleteOutput):
        taken(body, 1, size)


def test_a_page_in_the_place_of_output_is_doubted_before_its_first_byte_is_stored() -> None:
    passed: list[bytes] = []

    with pytest.raises(IncompleteOutput, match="not made of rows"):
        DownloadCheck(passed.append, expected=9).write(b" <html>" * 1000)

    assert passed == []


@given(st.integers(9, 60), st.integers(1, 500))
def test_whole_pieces_of_short_output_stay_and_the_rest_is_brought_later(kept: int, size: int) -> None:
    body = b"".join(b'{"key": "%d"}\n' % number for number in range(60))
    lines = body.splitlines(keepends=True)
    stored: list[bytes] = []
    collected = 0

    class File:
        def __enter__(self) -> File:
            stored.append(b"")
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def write(self, data: bytes) -> int:
            stored[-1] += data
            return len(data)

    released: list[bytes] = []

    def download(body: bytes) -> None:
        nonlocal collected

        def release(piece: object) -> None:
            nonlocal collected
            released.append(stored[-1])
            collected = piece.collected  # type: ignore[attr-defined]

        with PieceWriter(
            SegmentCutter(max_bytes=1 << 20, max_rows=1),
            opened=lambda _: File(),  # type: ignore[arg-type,return-value]
            release=release,
            keep=lambda: None,
            collected=collected,
        ) as pieces:
            check = DownloadCheck(pieces.write, expected=60)
            for chunk in chunks(body, size):
                check.write(chunk)
            check.finish()
            pieces.finish()

    if kept < 60:
        with pytest.raises(IncompleteOutput):
            download(b"".join(lines[:kept]))
    download(body)

    assert b"".join(released) == body
