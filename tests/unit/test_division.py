"""The division of a job's requests into those that it keeps and the rest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lowtide_worker.state import Ordinals, divided


@given(st.sets(st.integers(0, 80), min_size=2), st.data())
def test_every_request_is_on_one_side(wanted: set[int], data: st.DataObject) -> None:
    first, last = min(wanted), max(wanted) + 1
    at = data.draw(st.sampled_from(sorted(wanted)[1:]))
    bits = bytearray((last - first + 7) // 8)
    for ordinal in wanted:
        bits[(ordinal - first) // 8] |= 0x80 >> (ordinal - first) % 8

    kept, rest = divided(Ordinals(first=first, last=last, bitmap=bytes(bits)), at)

    assert set(kept) == {ordinal for ordinal in wanted if ordinal < at}
    assert set(rest) == {ordinal for ordinal in wanted if ordinal >= at}


@given(st.integers(0, 50), st.integers(1, 50), st.integers(1, 50))
def test_a_range_is_divided_into_ranges(first: int, kept: int, rest: int) -> None:
    at = first + kept
    left, right = divided(Ordinals(first=first, last=at + rest), at)

    assert (list(left), list(right)) == (list(range(first, at)), list(range(at, at + rest)))
    assert left.bitmap is right.bitmap is None
