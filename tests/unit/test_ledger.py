from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide_worker.state import Ordinals
from lowtide_worker.state.ordinals import missing, parted


def bitmap(ordinals: set[int], first: int) -> bytes:
    """As Redis lays it: by ordinal minus `first`, most significant bit first, no longer than it must be."""
    laid = bytearray(max((ordinal - first for ordinal in ordinals), default=-1) // 8 + 1)
    for ordinal in ordinals:
        laid[(ordinal - first) // 8] |= 0x80 >> ((ordinal - first) % 8)
    return bytes(laid)


@st.composite
def some_ordinals(draw: st.DrawFn) -> tuple[Ordinals, set[int]]:
    first = draw(st.integers(0, 100))
    if draw(st.booleans()):
        last = first + draw(st.integers(1, 70))
        return Ordinals(first=first, last=last), set(range(first, last))
    ordinals = draw(st.sets(st.integers(first, first + 70), min_size=1, max_size=40))
    return Ordinals(first=first, last=max(ordinals) + 1, bitmap=bitmap(ordinals, first)), ordinals


@settings(deadline=None, max_examples=300)
@given(some_ordinals())
def test_ordinals_are_a_sorted_set(drawn: tuple[Ordinals, set[int]]) -> None:
    carried, ordinals = drawn
    assert list(carried) == sorted(ordinals)
    assert len(carried) == len(ordinals)


@settings(deadline=None, max_examples=300)
@given(some_ordinals())
def test_runs_are_the_same_ordinals_in_as_few_ranges_as_can_be(drawn: tuple[Ordinals, set[int]]) -> None:
    carried, ordinals = drawn
    runs = list(carried.runs())
    assert [ordinal for first, last in runs for ordinal in range(first, last)] == sorted(ordinals)
    assert all(first < last for first, last in runs)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(runs))


@settings(deadline=None, max_examples=300)
@given(some_ordinals())
def test_aligned_ordinals_are_the_same_from_a_whole_byte_on(drawn: tuple[Ordinals, set[int]]) -> None:
    carried, ordinals = drawn
    aligned = carried.aligned()
    assert list(aligned) == sorted(ordinals)
    assert (aligned.first, aligned.last) == (carried.first // 8 * 8, carried.last)
    assert aligned.bitmap == bitmap(ordinals, aligned.first)


def settled_bytes(settled: set[int], carried: Ordinals) -> bytes:
    """Returns the reply of GETRANGE for the bytes that hold `carried`: shorter where nothing later was ever set."""
    return bitmap(settled, 0)[carried.first // 8 : (carried.last - 1) // 8 + 1]


@settings(deadline=None, max_examples=300)
@given(some_ordinals(), st.data())
def test_missing_are_those_carried_and_not_settled(drawn: tuple[Ordinals, set[int]], data: st.DataObject) -> None:
    carried, ordinals = drawn
    anything = st.integers(max(0, carried.first - 20), carried.last + 20)
    settled = data.draw(st.sets(anything) | st.sets(st.sampled_from(sorted(ordinals))) | st.just(ordinals))
    left = missing(carried, settled_bytes(settled, carried))
    expected = ordinals - settled
    if not expected:
        assert left is None
        return
    assert left is not None
    assert set(left) == expected
    assert (left.first, left.last) == (min(expected), max(expected) + 1)
    assert left.bitmap is not None
    assert len(left.bitmap) == (left.last - left.first + 7) // 8


@settings(deadline=None, max_examples=200)
@given(some_ordinals(), st.lists(st.sets(st.integers(0, 200)), min_size=1, max_size=5))
def test_round_by_round_the_missing_become_fewer_and_none_is_lost(
    drawn: tuple[Ordinals, set[int]], rounds: list[set[int]]
) -> None:
    carried, expected = drawn
    settled: set[int] = set()
    for more in rounds:
        settled |= more
        expected = expected - settled
        found = missing(carried, settled_bytes(settled, carried))
        assert set(found or ()) == expected
        if found is None:
            return
        carried = found


def test_nothing_settled_yet_means_that_all_are_missing() -> None:
    left = missing(Ordinals(first=3, last=12), b"")
    assert left == Ordinals(first=3, last=12, bitmap=b"\xff\x80")


@pytest.mark.parametrize(("first", "last"), [(0, 1), (7, 8), (8, 9), (0, 8), (1, 9), (7, 17), (1000, 1003)])
def test_all_settled_means_none_missing(first: int, last: int) -> None:
    carried = Ordinals(first=first, last=last)
    assert missing(carried, settled_bytes(set(range(first, last)), carried)) is None
    assert missing(carried, b"\xff" * len(settled_bytes({last - 1}, carried))) is None


def test_ten_million_requests_are_no_burden() -> None:
    carried = Ordinals(first=0, last=10_000_000)
    settled = bytearray(b"\xff" * 1_250_000)
    settled[1_000_000] = 0xFE
    left = missing(carried, bytes(settled))
    assert left is not None
    assert list(left.runs()) == [(8_000_007, 8_000_008)]
    assert list(carried.runs()) == [(0, 10_000_000)]
    assert len(carried) == 10_000_000


@settings(deadline=None, max_examples=300)
@given(some_ordinals(), st.sets(st.integers(0, 180)))
def test_ordinals_are_parted_into_those_chosen_and_the_others(
    drawn: tuple[Ordinals, set[int]], chosen: set[int]
) -> None:
    carried, ordinals = drawn

    found = parted(carried, chosen)

    assert [set(some) if some else set() for some in found] == [ordinals & chosen, ordinals - chosen]
    assert all(some is None or (some.bitmap and len(some)) for some in found)
