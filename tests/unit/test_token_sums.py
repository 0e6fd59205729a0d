"""The running totals of estimated tokens in the spool's index."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.scratch import emptied

from lowtide import Settings
from lowtide.protocol import BatchFiles
from lowtide.shaping import shaper_of
from lowtide.spending import weighing
from lowtide.spool import Accepted, RequestReader, RequestWriter, Spool, write_unpacked
from lowtide.states import Kind, ProviderName
from lowtide_worker.stages.submit import _cut

MANY = 5000


def intake(spool: Spool, sizes: list[int], batch: str) -> Accepted:
    """Each request has one text of as many tokens as its size says."""
    shaper = shaper_of(ProviderName.GEMINI, model="gemini-3.5-flash", kind=Kind.GENERATION)
    with RequestWriter(spool, batch, shaper, max_request_bytes=1 << 20) as writer:
        for number, size in enumerate(sizes):
            writer.add({"key": str(number), "contents": "x" * (4 * size)})
        return writer.finish()


def test_the_index_sums_the_tokens_of_the_requests(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    sizes = [5, 1, 60, 2]
    assert intake(spool, sizes, "batch").tokens == sum(sizes)
    reader = RequestReader(spool, "batch")
    assert [reader.tokens(0, n) for n in range(5)] == [0, 5, 6, 66, 68]
    assert reader.tokens(2, 4) == 62
    assert list(reader.keys([0, 1, 3])) == [0, 1, 3]


def test_an_index_under_a_budget_counts_the_output_of_each_request_and_another_one_does_not(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    shaper = shaper_of(ProviderName.GEMINI, model="gemini-3.5-flash", kind=Kind.GENERATION)
    weigh = weighing("gemini-3.5-flash", Kind.GENERATION, Settings(_env_file=None))
    items = [
        {"key": "a", "contents": "x" * 40, "config": {"max_output_tokens": 7}},
        {"key": "b", "contents": "x" * 8},
        {"key": "c", "contents": "x" * 8, "config": {"max_output_tokens": 50}},
    ]
    with RequestWriter(spool, "small", shaper, max_request_bytes=1 << 20, weigh=weigh) as writer:
        for item in items:
            writer.add(item)
        accepted = writer.finish()
    with write_unpacked(spool, BatchFiles("large"), wide=True) as lines:
        for output in (7, 2000, 50):
            lines.add(b"{}\n", b'["r","k"]\n', 2, output)
    intake(spool, [1, 2, 3], "other")

    assert accepted.output_tokens == 2057
    assert (accepted.least_cost, accepted.most_cost) == (10 * 750 + 7 * 4500, 2 * 750 + 2000 * 4500)
    for name in ("small", "large"):
        reader = RequestReader(spool, name)
        assert reader.output(1, 3) == 2050
        assert list(reader.outputs(1, 3) or ()) == [2000, 50]
        assert reader.damaged(3, lines=True, groups=False) is None
        assert list(reader.keys([0, 1, 2])) == [0, 1, 2]
        assert list(reader.cuts(3, max_requests=2, max_bytes=1000)) == [(0, 2), (2, 3)]
        assert reader.fitting(0, 3, max_bytes=1000, max_tokens=12) >= 2
    assert RequestReader(spool, "other").outputs(0, 3) is None


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=20),
    st.integers(0, 400),
    st.none() | st.integers(0, 400),
    st.integers(0, 4000),
)
@example([1, 1], 0, 0, 0)
def test_a_cut_is_the_longest_run_within_all_limits(
    sizes: list[int], first: int, most_tokens: int | None, most_bytes: int
) -> None:
    first %= len(sizes)
    spool = emptied()
    intake(spool, sizes, "batch")
    reader = RequestReader(spool, "batch")
    last = reader.fitting(first, len(sizes), max_bytes=most_bytes, max_tokens=most_tokens)

    def fits(end: int) -> bool:
        start, stop = reader.byte_range(first, end)
        return stop - start <= most_bytes and (most_tokens is None or sum(sizes[first:end]) <= most_tokens)

    assert fits(last)
    assert last == len(sizes) or not fits(last + 1)


def test_a_cut_of_many_requests_reads_a_few_entries_of_the_index(tmp_path: Path) -> None:
    spool = Counting(str(tmp_path))
    intake(spool, [3] * MANY, "batch")
    reader = RequestReader(spool, "batch")
    for first in (0, 1234, MANY - 1):
        for count in (0, 1, 77, 1024, 1025, 3000):
            spool.reads = 0
            assert reader.fitting(first, MANY, max_bytes=1 << 40, max_tokens=3 * count + 2) == min(MANY, first + count)
            assert spool.reads <= 6


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(1, 150))
def test_jobs_are_cut_by_tokens_too(sizes: list[int], most: int) -> None:
    spool = emptied()
    intake(spool, sizes, "batch")
    cuts = list(RequestReader(spool, "batch").cuts(len(sizes), max_requests=99, max_bytes=1 << 30, max_tokens=most))
    assert [ordinal for first, last in cuts for ordinal in range(first, last)] == list(range(len(sizes)))
    for first, last in cuts:
        assert sum(sizes[first:last]) <= most or last == first + 1
    for (first, last), _ in pairwise(cuts):
        assert sum(sizes[first : last + 1]) > most, "cut too early"


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60)), min_size=1, max_size=20), st.integers(1, 150))
def test_jobs_of_groups_are_cut_by_tokens_too(requests: list[tuple[int, int]], most: int) -> None:
    groups = [(ordinal, group, 1, tokens) for ordinal, (group, tokens) in enumerate(requests)]
    jobs = [list(job) for job in _cut(groups, max_requests=99, max_bytes=99, max_tokens=most)]
    assert sorted(ordinal for job in jobs for ordinal in job) == list(range(len(requests)))
    for job in jobs:
        assert len({requests[ordinal][0] for ordinal in job}) == 1
        assert sum(requests[ordinal][1] for ordinal in job) <= most or len(job) == 1


class Counting(Spool):
    reads = 0

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        self.reads += 1
        return super().read(name, start, end)
