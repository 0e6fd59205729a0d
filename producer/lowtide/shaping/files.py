"""Reads the lines of a user's file as it is, and says what is wrong with a file that cannot be read."""

from __future__ import annotations

import codecs
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

from lowtide.errors import InvalidBatch, InvalidRequest
from lowtide.extras import install

_HEAD_BYTES = 1024
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHERS = {b"PK\x03\x04": "a zip archive", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"SQLite format": "a database"}
AN_ARRAY = "a file holds one request a line, not a JSON array (`jq -c '.[]'` puts each on its own)"
_WIDE = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


_AT = re.compile(r" \(byte (\d+)\)$")


def file_lines(file: IO[bytes], name: str, *, most: int, first: int = 0) -> Iterator[bytes]:
    """The lines of a JSONL file, UTF-8 with or without a byte order mark, plain or compressed by gzip or zstd.

    - `file`: open for reading at its start. It stays open.
    - `name`: the file's name, for errors.
    - `most`: the most bytes of a line. No more of a longer one are read, which may have no end.
    - `first`: the number of the first line, for errors.

    Raises `InvalidBatch` for a file that is something else or is cut off, and `InvalidRequest` for a longer line.
    """
    with _buffered(file) as buffered, _plain(buffered, name) as plain:
        # So much shows what the file is.
        line = _checked_start(plain.readline(_HEAD_BYTES), name)
        if not line.endswith(b"\n"):
            line += plain.readline(max(0, most + 1 - len(line)))
        for number in itertools.count(first):
            if not line:
                return
            if len(line) > most:
                raise InvalidRequest(
                    f"longer than {most:,} bytes, the most that one job may hold; is a line end missing?",
                    field="line",
                    position=number,
                )
            yield line
            line = plain.readline(most + 1)


def is_plain(file: io.BufferedReader) -> bool:
    """Returns whether the lines of a file are its own bytes: it is neither compressed nor has it a byte order mark."""
    return not file.peek(_HEAD_BYTES).startswith((_GZIP, _ZSTD, codecs.BOM_UTF8))


@contextmanager
def _buffered(file: IO[bytes]) -> Iterator[IO[bytes]]:
    if hasattr(file, "peek"):
        yield file
        return
    buffered = io.BufferedReader(cast("io.RawIOBase", file))
    try:
        yield cast("IO[bytes]", buffered)
    finally:
        # A buffer that is not detached closes the file when it is collected.
        with suppress(ValueError):
            buffered.detach()


@contextmanager
def _plain(file: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    head = cast("Any", file).peek(_HEAD_BYTES)
    for start, what in _OTHERS.items():
        if head.startswith(start):
            raise InvalidBatch(f"{name} is {what}, not JSON lines; gzip and zstd can be read as they are")
    try:
        if head.startswith(_GZIP):
            with gzip.open(file, "rb") as plain:
                yield cast("IO[bytes]", plain)
        elif head.startswith(_ZSTD):
            with _zstd(file, name) as plain:
                yield plain
        else:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(name, error) from error


@contextmanager
def _zstd(file: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    try:
        from compression import zstd  # in the standard library since Python 3.14
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            raise InvalidBatch(f"{name} is compressed by zstd, which needs an extra: {install('zstd')}") from None
    try:
        with zstd.open(file, "rb") as plain:
            yield cast("IO[bytes]", plain)
    except zstd.ZstdError as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> InvalidBatch:
    return InvalidBatch(f"{name} is compressed, and cut off or damaged: {error}")


def _checked_start(line: bytes, name: str) -> bytes:
    """The first line without a byte order mark. Raises `InvalidBatch` where the file has another encoding."""
    for mark, encoding in _WIDE.items():
        if line.startswith(mark):
            raise InvalidBatch(f"{name} is {encoding}; save it as UTF-8")
    if b"\0" in line[:_HEAD_BYTES]:
        raise InvalidBatch(f"{name} is not text, or UTF-16 without a mark; save it as UTF-8")
    return line.removeprefix(codecs.BOM_UTF8)


def why_no_json(text: bytes | str, error: Exception) -> str:
    """Why a line of a file, or a text in a table, is no JSON. `error` is the decoder's."""
    if isinstance(text, str):
        return _why(text.encode(errors="replace"), error)
    try:
        text.decode()
    except UnicodeDecodeError as bad:
        return (
            f"not UTF-8: byte 0x{text[bad.start]:02X} at column {len(text[: bad.start].decode()) + 1}; "
            "save the file as UTF-8"
        )
    start = text.strip()
    if start in {b"{", b"["} or (start.startswith(b'"') and start.endswith((b",", b"{", b"["))):
        return "a request must be on one line, and this file has one over several (`jq -c .` puts each on its own)"
    if start.startswith(b"["):
        return AN_ARRAY
    return _why(text, error)


def _why(text: bytes, error: Exception) -> str:
    said = str(error).removeprefix("JSON is malformed: ")
    if said == "Input data was truncated":
        return "not JSON: it ends too early"
    # The decoder counts bytes, an editor columns.
    return "not JSON: " + _AT.sub(lambda at: f" at column {len(text[: int(at[1])].decode(errors='replace')) + 1}", said)
