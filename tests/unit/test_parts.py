from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from lowtide_worker.output import even_ends, part_ranges
from lowtide_worker.providers import Part
from lowtide_worker.providers.ranges import whole_lines

FILES = st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=30).flatmap(
    lambda lines: st.sampled_from([b"\n".join(lines), b"".join(line + b"\n" for line in lines)])
)


@given(st.lists(FILES, min_size=1, max_size=4), st.integers(1, 40))
def test_every_line_is_read_exactly_once_whatever_the_cut(files: list[bytes], size: int) -> None:
    blobs = {f"part-{number}": data for number, data in enumerate(files)}
    parts = [Part(name, len(data)) for name, data in blobs.items()]
    ends = even_ends(parts, size)
    read = bytearray()
    for start, end in itertools.pairwise([0, *ends]):
        [((name, _, _), first, last)] = part_ranges(parts, start, end)
        assert 0 <= first < last <= len(blobs[name])

        def ranged(at: int, to: int, name: str = name) -> bytes:
            return blobs[name][at:to]

        block = whole_lines(ranged, first, last)
        # A block is whole lines: it begins where a line begins and ends where one ends.
        assert not block or block.endswith(b"\n") or blobs[name].endswith(block)
        read += block
    assert bytes(read) == b"".join(files)


def test_a_line_longer_than_many_segments_comes_once() -> None:
    data = b"a\n" + b"x" * 500_000 + b"\nb\n"
    ends = even_ends([Part("p", len(data))], 1000)
    blocks = [whole_lines(lambda at, to: data[at:to], start, end) for start, end in itertools.pairwise([0, *ends])]
    assert [block for block in blocks if block] == [data[:-2], b"b\n"]


def test_a_short_line_read_does_not_reach_for_the_rest_of_the_file() -> None:
    asked: list[int] = []
    data = b"0123456789\n" * 100_000

    def read(at: int, to: int) -> bytes:
        asked.append(to - at)
        return data[at:to]

    assert whole_lines(read, 1000, 2000).startswith(b"0123456789\n")
    assert sum(asked) < 100_000
