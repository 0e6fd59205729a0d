from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide_worker.state import Rows
from lowtide_worker.state.ordinals import missing_rows


def bitmap(ordinals: set[int], first: int) -> bytes:
    """As Redis lays it: by ordinal minus `first`, most significant bit first, no longer than it must be."""
    laid = bytearray(max((ordinal - first for ordinal in ordinals), default=-1) // 8 + 1)
    for ordinal in ordinals:
        laid[(ordinal - first) // 8] |= 0x80 >> ((ordinal - first) % 8)
    return bytes(laid)


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[Rows, set[int]]:
    first = draw(st.integers(0, 100))
    if draw(st.booleans()):
        last = first + draw(st.integers(1, 70))
        return Rows(first=first, last=last), set(range(first, last))
    ordinals = draw(st.sets(st.integers(first, first + 70), min_size=1, max_size=40))
    return Rows(first=first, last=max(ordinals) + 1, bitmap=bitmap(ordinals, first)), ordinals


@settings(deadline=None, max_examples=300)
@given(some_rows())
def test_rows_are_a_sorted_set_of_ordinals(drawn: tuple[Rows, set[int]]) -> None:
    rows, ordinals = drawn
    assert list(rows) == sorted(ordinals)
    assert len(rows) == len(ordinals)


@settings(deadline=None, max_examples=300)
@given(some_rows())
def test_runs_are_the_same_ordinals_in_as_few_ranges_as_can_be(drawn: tuple[Rows, set[int]]) -> None:
    rows, ordinals = drawn
    runs = list(rows.runs())
    assert [ordinal for first, last in runs for ordinal in range(first, last)] == sorted(ordinals)
    assert all(first < last for first, last in runs)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(runs))


def settled_bytes(settled: set[int], rows: Rows) -> bytes:
    """Returns the reply of GETRANGE for the bytes that hold `rows`: shorter where nothing later was ever set."""
    return bitmap(settled, 0)[rows.first // 8 : (rows.last - 1) // 8 + 1]


@settings(deadline=None, max_examples=1000)
@given(some_rows(), st.data())
def test_missing_rows_are_those_carried_and_not_settled(drawn: tuple[Rows, set[int]], data: st.DataObject) -> None:
    rows, ordinals = drawn
    anything = st.integers(max(0, rows.first - 20), rows.last + 20)
    settled = data.draw(st.sets(anything) | st.sets(st.sampled_from(sorted(ordinals))) | st.just(ordinals))
    missing = missing_rows(rows, settled_bytes(settled, rows))
    expected = ordinals - settled
    if not expected:
        assert missing is None
        return
    assert missing is not None
    assert set(missing) == expected
    assert (missing.first, missing.last) == (min(expected), max(expected) + 1)
    assert missing.bitmap is not None
    assert len(missing.bitmap) == (missing.last - missing.first + 7) // 8


@settings(deadline=None, max_examples=200)
@given(some_rows(), st.lists(st.sets(st.integers(0, 200)), min_size=1, max_size=5))
def test_round_by_round_the_missing_rows_become_fewer_and_none_is_lost(
    drawn: tuple[Rows, set[int]], rounds: list[set[int]]
) -> None:
    rows, expected = drawn
    settled: set[int] = set()
    for more in rounds:
        settled |= more
        expected = expected - settled
        found = missing_rows(rows, settled_bytes(settled, rows))
        assert set(found or ()) == expected
        if found is None:
            return
        rows = found


def test_nothing_settled_yet_means_that_all_are_missing() -> None:
    missing = missing_rows(Rows(first=3, last=12), b"")
    assert missing == Rows(first=3, last=12, bitmap=b"\xff\x80")


@pytest.mark.parametrize(("first", "last"), [(0, 1), (7, 8), (8, 9), (0, 8), (1, 9), (7, 17), (1000, 1003)])
def test_all_settled_means_none_missing(first: int, last: int) -> None:
    rows = Rows(first=first, last=last)
    assert missing_rows(rows, settled_bytes(set(range(first, last)), rows)) is None
    assert missing_rows(rows, b"\xff" * len(settled_bytes({last - 1}, rows))) is None


def test_ten_million_rows_are_no_burden() -> None:
    rows = Rows(first=0, last=10_000_000)
    settled = bytearray(b"\xff" * 1_250_000)
    settled[1_000_000] = 0xFE
    missing = missing_rows(rows, bytes(settled))
    assert missing is not None
    assert list(missing.runs()) == [(8_000_007, 8_000_008)]
    assert list(rows.runs()) == [(0, 10_000_000)]
    assert len(rows) == 10_000_000
