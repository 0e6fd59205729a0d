from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.errors import SpoolError
from lowtide_worker.providers import SpoolSlice
from lowtide_worker.providers.upload_slice import MOST_AT_ONCE

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 40) | st.none()),
        st.tuples(st.just("seek"), st.integers(0, 40), st.just(io.SEEK_SET)),
        st.tuples(st.just("seek"), st.integers(-10, 10), st.sampled_from([io.SEEK_CUR, io.SEEK_END])),
        st.tuples(st.just("tell")),
        st.tuples(st.just("readline")),
        st.tuples(st.just("readlines")),
    ),
    max_size=12,
)


def slice_of(content: bytes, start: int, end: int) -> SpoolSlice:
    return SpoolSlice(io.BytesIO(content), start, end, lambda: None)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 60), ACTIONS)
def test_a_slice_behaves_like_a_file_of_its_own(content: bytes, start: int, length: int, actions: list[Any]) -> None:
    start = min(start, len(content))
    end = min(start + length, len(content))
    piece, oracle = slice_of(content, start, end), io.BytesIO(content[start:end])
    for name, *arguments in actions:
        assert getattr(piece, name)(*arguments) == getattr(oracle, name)(*arguments)
        assert piece.tell() == oracle.tell()


def test_a_slice_can_be_read_by_whatever_reads_files() -> None:
    content = b"0123456789" * 1000
    assert slice_of(content, 10, 9990).readall() == content[10:9990]
    assert b"".join(slice_of(b"a\nb\nc\nd", 2, 6)) == b"b\nc\n"
    assert io.BufferedReader(slice_of(content, 10, 9990), 100).read() == content[10:9990]


def test_however_much_is_asked_for_little_is_held_at_once() -> None:
    content = b"ab" * MOST_AT_ONCE
    piece = slice_of(content, 1, len(content))
    sizes = [len(data) for data in iter(lambda: piece.read(3 * MOST_AT_ONCE), b"")]
    assert sizes == [MOST_AT_ONCE, MOST_AT_ONCE - 1]


def test_a_slice_says_what_it_can() -> None:
    piece = slice_of(b"abc", 0, 3)
    assert (piece.readable(), piece.seekable(), piece.writable()) == (True, True, False)


def test_reading_keeps_the_lease() -> None:
    kept: list[None] = []
    piece = SpoolSlice(io.BytesIO(b"abcdef"), 0, 6, lambda: kept.append(None))
    piece.read(2)
    piece.read(2)
    assert len(kept) == 2


def test_closing_a_slice_leaves_the_file_open() -> None:
    file = io.BytesIO(b"abcdef")
    with SpoolSlice(file, 1, 3, lambda: None) as piece:
        assert piece.read() == b"bc"
    assert file.read() == b"def"


def test_a_file_that_ends_early_is_an_error_and_not_an_empty_read() -> None:
    piece = slice_of(b"0123456789", 5, 15)

    with pytest.raises(SpoolError, match="end 5 bytes early"):
        piece.read(100)
