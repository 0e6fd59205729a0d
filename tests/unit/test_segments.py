from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lowtide_worker.output import Piece, PieceWriter, SegmentCutter, SegmentedWriter

LINES = st.one_of(
    st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")),
    st.text(max_size=6).map(lambda line: line.encode(errors="replace").replace(b"\n", b"")),
    st.sampled_from([b"", b"\r", b"x" * 50, "🌊ñ\u2028".encode(), b"\xff\xfe", b"\x0b\x0c\x1c\x85"]),
)
STREAMS = st.tuples(st.lists(LINES, max_size=25), st.booleans()).map(
    lambda drawn: b"\n".join(drawn[0]) + (b"\n" if drawn[1] else b"")
)
BYTES, ROWS = st.integers(1, 60), st.integers(1, 8)


def cut(stream: bytes, *, max_bytes: int, max_rows: int, at: list[int] | None = None) -> list[int]:
    cutter = SegmentCutter(max_bytes=max_bytes, max_rows=max_rows)
    places = [0, *sorted(at or []), len(stream)]
    for start, end in itertools.pairwise(places):
        cutter.feed(stream[start:end])
    return cutter.finish()


def line_ends(stream: bytes) -> list[int]:
    ends = [place + 1 for place, byte in enumerate(stream) if byte == 0x0A]
    return ends if ends[-1:] == [len(stream)] or not stream else [*ends, len(stream)]


def obvious_cut(stream: bytes, *, max_bytes: int, max_rows: int) -> list[int]:
    """The documented rule, line by line."""
    ends: list[int] = []
    start = rows = 0
    for end in line_ends(stream):
        rows += 1
        if end - start >= max_bytes or rows == max_rows or end == len(stream):
            ends.append(end)
            start, rows = end, 0
    return ends


@settings(deadline=None, max_examples=400)
@given(STREAMS, BYTES, ROWS)
def test_segments_end_where_the_rule_says(stream: bytes, max_bytes: int, max_rows: int) -> None:
    expected = obvious_cut(stream, max_bytes=max_bytes, max_rows=max_rows)
    assert cut(stream, max_bytes=max_bytes, max_rows=max_rows) == expected


@settings(deadline=None, max_examples=400)
@given(STREAMS, BYTES, ROWS, st.data())
def test_how_the_stream_arrives_does_not_matter(
    stream: bytes, max_bytes: int, max_rows: int, data: st.DataObject
) -> None:
    at = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    whole = cut(stream, max_bytes=max_bytes, max_rows=max_rows)
    assert cut(stream, max_bytes=max_bytes, max_rows=max_rows, at=at) == whole


@settings(deadline=None)
@given(STREAMS, BYTES, ROWS)
def test_a_stream_may_arrive_byte_by_byte(stream: bytes, max_bytes: int, max_rows: int) -> None:
    every = list(range(len(stream)))
    whole = cut(stream, max_bytes=max_bytes, max_rows=max_rows)
    assert cut(stream, max_bytes=max_bytes, max_rows=max_rows, at=every) == whole


@settings(deadline=None, max_examples=300)
@given(STREAMS, BYTES, ROWS, st.data())
@example(b"aaa\nbbb\n", 4, 10, None)
def test_segments_cover_the_stream_cut_no_line_and_keep_both_limits(
    stream: bytes, max_bytes: int, max_rows: int, data: st.DataObject | None
) -> None:
    at = data.draw(st.lists(st.integers(0, len(stream)), max_size=5)) if data else [4]
    ends = cut(stream, max_bytes=max_bytes, max_rows=max_rows, at=at)
    assert all(a < b for a, b in zip([0, *ends], ends, strict=False))
    assert (ends[-1] if ends else 0) == len(stream)
    assert all(stream[end - 1 : end] == b"\n" for end in ends[:-1])
    for start, end in zip([0, *ends], ends, strict=False):
        lines = stream[start:end].removesuffix(b"\n").split(b"\n")
        assert len(lines) <= max_rows
        before_the_last = end - start - len(stream[start:end].removesuffix(b"\n").rpartition(b"\n")[2]) - 1
        assert end - start <= max_bytes or before_the_last < max_bytes


def test_a_segment_that_is_full_at_the_end_of_a_chunk_takes_no_further_line() -> None:
    assert cut(b"aaa\nbbb\nccc\n", max_bytes=4, max_rows=10, at=[4]) == [4, 8, 12]
    assert cut(b"aaa\nbbb\nccc\n", max_bytes=8, max_rows=10, at=[8]) == [8, 12]


def test_a_stream_that_is_empty_has_no_segments() -> None:
    assert cut(b"", max_bytes=1, max_rows=1) == []
    assert cut(b"", max_bytes=1, max_rows=1, at=[0, 0]) == []


def test_a_line_longer_than_a_segment_is_a_segment() -> None:
    stream = b"x" * 5000 + b"\n" + b"y\n"
    assert cut(stream, max_bytes=10, max_rows=10, at=list(range(0, 5000, 7))) == [5001, 5003]


def test_empty_lines_count_as_rows_and_carriage_returns_are_no_line_ends() -> None:
    assert cut(b"\n\n\n\n\n", max_bytes=100, max_rows=2) == [2, 4, 5]
    assert cut(b"a\r\nb\r\nc\r", max_bytes=100, max_rows=1) == [3, 6, 8]


def test_the_last_line_may_lack_its_newline() -> None:
    assert cut(b"a\nb", max_bytes=100, max_rows=1) == [2, 3]
    assert cut(b"a", max_bytes=1, max_rows=1) == [1]


def test_a_large_stream_is_cut_as_a_download_brings_it() -> None:
    stream = b"".join(b"%d" % number * 40 + b"\n" for number in range(40_000))
    ends = cut(stream, max_bytes=1 << 18, max_rows=1000, at=list(range(0, len(stream), 65_536)))
    assert ends == obvious_cut(stream, max_bytes=1 << 18, max_rows=1000)


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_the_writer_passes_everything_on_and_keeps_its_lease(kind: type[bytes]) -> None:
    file, kept = io.BytesIO(), []
    cutter = SegmentCutter(max_bytes=4, max_rows=10)
    sink = SegmentedWriter(file, cutter, lambda: kept.append(file.tell()))
    assert sink.write(kind(b"aaa\nb")) == 5
    assert sink.write(kind(b"bb\nc")) == 4
    assert file.getvalue() == b"aaa\nbbb\nc"
    assert cutter.finish() == [4, 8, 9]
    assert kept == [5, 9]


class Shelf:
    """Records the stored pieces, and those that were released."""

    def __init__(self) -> None:
        self.complete: dict[int, bytes] = {}
        self.released: list[Piece] = []

    @contextmanager
    def opened(self, number: int) -> Iterator[io.BytesIO]:
        file = io.BytesIO()
        yield file
        self.complete[number] = file.getvalue()

    def release(self, piece: Piece) -> None:
        assert piece.number in self.complete
        self.released.append(piece)

    def segments(self) -> list[bytes]:
        return [
            self.complete[piece.number][start:end]
            for piece in self.released
            for start, end in itertools.pairwise([0, *piece.ends])
        ]


def write_pieces(chunks: Iterable[bytes], shelf: Shelf, *, collected: int = 0, max_rows: int = 1) -> int:
    cutter = SegmentCutter(max_bytes=1000, max_rows=max_rows)
    with PieceWriter(
        cutter, opened=shelf.opened, release=shelf.release, keep=lambda: None, collected=collected
    ) as sink:
        for chunk in chunks:
            assert sink.write(chunk) == len(chunk)
        return sink.finish()


def chunks_of(stream: bytes, at: list[int]) -> list[bytes]:
    return [stream[start:end] for start, end in itertools.pairwise([0, *sorted(at), len(stream)])]


LONG = b"".join(b"line %d\n" % number for number in range(50))


@settings(deadline=None)
@given(st.lists(st.integers(0, len(LONG)), max_size=9))
def test_pieces_hold_all_segments_however_the_stream_arrives(at: list[int]) -> None:
    shelf = Shelf()
    assert write_pieces(chunks_of(LONG, at), shelf) == 50
    assert shelf.segments() == LONG.splitlines(keepends=True)
    assert [piece.last for piece in shelf.released] == [False] * (len(shelf.released) - 1) + [True]
    assert shelf.released[-1].collected == len(LONG)


def test_what_was_released_stays_when_the_stream_breaks_off() -> None:
    def broken() -> Iterator[bytes]:
        yield LONG[:200]
        raise ConnectionError

    shelf = Shelf()
    with pytest.raises(ConnectionError):
        write_pieces(broken(), shelf)
    assert b"".join(shelf.segments()) == LONG[: shelf.released[0].collected]
    assert list(shelf.complete) == [0]


@settings(deadline=None)
@given(st.lists(st.integers(0, len(LONG)), max_size=9), st.integers(0, 50), st.integers(1, 7))
def test_a_later_run_goes_on_behind_what_was_collected(at: list[int], done: int, max_rows: int) -> None:
    collected = len(b"".join(LONG.splitlines(keepends=True)[:done]))
    shelf = Shelf()
    write_pieces(chunks_of(LONG, at), shelf, collected=collected, max_rows=max_rows)
    assert b"".join(shelf.segments()) == LONG[collected:]
    assert shelf.released[-1].collected == len(LONG)
