"""The division of a job's requests into those that it keeps and the rest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from lowtide.pricing import TokenPrice
from lowtide.spool import RequestReader
from lowtide_worker.stages.division import Weight, _affordable, _end, _first_of
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


def test_a_job_is_divided_where_a_job_that_redis_has_forgotten_begins() -> None:
    carried = Ordinals(first=10, last=20)

    assert _first_of(carried, {}, 15) == (0, 15)
    assert _first_of(carried, {4: Ordinals(first=13, last=16), 5: Ordinals(first=16, last=20)}, 15) == (4, 13)
    assert _first_of(carried, {4: Ordinals(first=10, last=12), 5: Ordinals(first=18, last=25)}, 15) == (0, 15)


def test_the_job_of_a_pool_keeps_a_request_although_its_bitmap_begins_before_it() -> None:
    carried = Ordinals(first=9, last=13, bitmap=bytes([0b1001_0000])).aligned()
    assert (carried.first, list(carried)) == (8, [9, 12])
    reader = cast("RequestReader", SimpleNamespace(sizes=lambda first, last: [(1, 100)] * (last - first)))

    at = _end(reader, carried, 1)

    assert [list(part) for part in divided(carried, at)] == [[9], [12]]
    assert _first_of(carried, {4: Ordinals(first=9, last=10), 5: Ordinals(first=12, last=13)}, at) == (5, 12)
    assert _first_of(carried, {4: Ordinals(first=9, last=10)}, at) == (0, 12)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1), st.integers(0, 10**5))
def test_a_job_keeps_as_many_of_its_first_requests_as_a_budget_pays_for(
    sizes: list[tuple[int, int]], most: int
) -> None:
    price = TokenPrice(750_000, 4_500_000)
    weights = [Weight(ordinal, *size) for ordinal, size in enumerate(sizes)]

    at = _affordable(iter(weights), price, most, end=len(sizes))

    def costs(end: int) -> int:
        return price.cost(*(sum(size[part] for size in sizes[:end]) for part in (0, 1)))

    assert at == 1 or costs(at) <= most
    assert at == len(sizes) or costs(at + 1) > most
