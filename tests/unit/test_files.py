"""Files come as users have them; what cannot be read is refused with its cause."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from typing import IO, cast

import msgspec
import pytest
from backports import zstd

from lowtide import InvalidBatch, InvalidRequest
from lowtide.shaping.files import file_lines, why_no_json

TEXT = '{"key": "r1", "contents": "Grüße, 你好 😀"}\n{"key": "r2", "contents": "zwei"}\n'


def lines(content: bytes) -> list[bytes]:
    return list(file_lines(io.BufferedReader(io.BytesIO(content)), "requests.jsonl", most=1 << 20))


@pytest.mark.parametrize(
    "written",
    [
        str.encode,
        lambda text: text.encode("utf-8-sig"),
        lambda text: gzip.compress(text.encode()),
        lambda text: zstd.compress(text.encode()),
    ],
    ids=["plain", "byte order mark", "gzip", "zstd"],
)
def test_each_form_gives_the_same_lines(written: Callable[[str], bytes]) -> None:
    assert b"".join(lines(written(TEXT))) == TEXT.encode()


def test_gzip_with_a_mark_inside_is_read_too() -> None:
    assert b"".join(lines(gzip.compress(TEXT.encode("utf-8-sig")))) == TEXT.encode()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (TEXT.encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (TEXT.encode("utf-16-le"), "UTF-16 without a mark"),
        (TEXT.encode("utf-32"), "is UTF-32; save it as UTF-8"),
        (b"PK\x03\x04rest", "a zip archive"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-12], "cut off or damaged"),
        (b"\x1f\x8b\x08\x00 no gzip", "cut off or damaged"),
        (zstd.compress(TEXT.encode())[:-5], "cut off or damaged"),
        (zstd.compress(TEXT.encode())[:8] + b"no zstd", "cut off or damaged"),
    ],
    ids=["UTF-16", "UTF-16 without a mark", "UTF-32", "zip", "cut gzip", "damaged gzip", "cut zstd", "damaged zstd"],
)
def test_what_cannot_be_read_is_refused_with_its_cause(content: bytes, cause: str) -> None:
    with pytest.raises(InvalidBatch, match=r"requests\.jsonl") as caught:
        lines(content)
    assert cause in str(caught.value)


@pytest.mark.parametrize("packed", [bytes, gzip.compress, zstd.compress], ids=["plain", "gzip", "zstd"])
def test_a_file_without_a_buffer_is_read_too_and_stays_open(packed: Callable[[bytes], bytes]) -> None:
    file = io.BytesIO(packed(TEXT.encode()))
    assert b"".join(file_lines(file, "requests.jsonl", most=1 << 20)) == TEXT.encode()
    assert not file.closed


class Endless(io.RawIOBase):
    """A file whose second line has no end. It counts the bytes that are read."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        block = (self.content or b"x" * len(buffer))[: len(buffer)]
        self.content = self.content[len(block) :]
        self.taken += len(block)
        assert self.taken < 10_000_000
        buffer[: len(block)] = block
        return len(block)


@pytest.mark.parametrize("start", [b"{}\n", gzip.compress(b"{}\n" + b"x" * 3_000_000)], ids=["plain", "gzip"])
def test_a_line_without_an_end_is_refused_with_its_number(start: bytes) -> None:
    file = Endless(start)
    found = file_lines(cast("IO[bytes]", file), "requests.jsonl", most=1 << 20, first=7)
    assert next(found) == b"{}\n"

    with pytest.raises(InvalidRequest, match="longer than 1,048,576 bytes") as caught:
        next(found)

    assert caught.value.position == 8
    assert file.taken < 2 << 20


def test_a_file_of_zeros_without_an_end_is_refused_at_its_start() -> None:
    file = cast("IO[bytes]", Endless(bytes(1 << 20)))
    with pytest.raises(InvalidBatch, match="not text"):
        next(file_lines(file, "requests.jsonl", most=1 << 30))


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 5000])
def test_a_line_of_the_most_bytes_is_read_whole(size: int) -> None:
    content = b"y" * (size - 1) + b"\n"
    assert list(file_lines(io.BytesIO(3 * content), "requests.jsonl", most=size)) == [content] * 3
    with pytest.raises(InvalidRequest) as caught:
        list(file_lines(io.BytesIO(content + b"y" + content), "requests.jsonl", most=size))
    assert caught.value.position == 1


def test_an_empty_file_has_no_lines_that_matter() -> None:
    assert b"".join(lines(b"")) == b""


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ('{"key": "ä", "contents": "ü"}'.encode("cp1252"), "not UTF-8: byte 0xE4 at column 10"),
        (b"{", "a request must be on one line"),
        (b'  "contents": [', "a request must be on one line"),
        (b'[{"key": "a"}', "a file holds one request a line, not a JSON array"),
        (b'{"key": }', "not JSON: invalid character at column 9"),
        ('{"key": "ä" "b"}'.encode(), "not JSON: expected ',' or '}' at column 13"),
        (b'{"key": "a"} {}', "not JSON: trailing characters at column"),
        (b'{"key": "a", "contents": "x', "not JSON: it ends too early"),
    ],
)
def test_a_line_that_is_no_json_says_why(line: bytes, cause: str) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)) as caught:
        msgspec.json.decode(line)
    assert why_no_json(line, caught.value).startswith(cause)
    assert "malformed" not in why_no_json(line, caught.value)
