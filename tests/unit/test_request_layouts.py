"""Small batches in one blob and large ones in several: the same requests are read from both, and damage is found."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lowtide import InvalidRequest
from lowtide.protocol import BatchFiles
from lowtide.shaping import shaper_of
from lowtide.spool import Accepted, DamagedBlob, InPlaceWriter, KeyIndex, RequestReader, RequestWriter, Spool
from lowtide.spool.format import ENTRY, HEADER_BYTES
from lowtide.states import Kind, ProviderName

BATCH = "batch"
FILES = BatchFiles(BATCH)
TOTAL = 500
LAYOUTS: dict[str, dict[str, int]] = {
    "one read": {},
    "several reads": {"reader._HEAD_BYTES": 200},
    "several blobs": {"writer.PACKED_BYTES": 3000},
}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in LAYOUTS[request.param].items():
        monkeypatch.setattr(f"lowtide.spool.{name}", value)
    return str(request.param)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "spool"))


def write(spool: Spool, items: Iterator[dict[str, Any]], provider: ProviderName = ProviderName.GEMINI) -> Accepted:
    shaper = shaper_of(provider, model="m", kind=Kind.GENERATION)
    with RequestWriter(spool, BATCH, shaper, max_request_bytes=10_000) as writer:
        for item in items:
            writer.add(item)
        return writer.finish()


def items(total: int = TOTAL) -> Iterator[dict[str, Any]]:
    return ({"key": f"k\n{n}", "contents": "x" * (1 + n % 50), "metadata": {"n": str(n)}} for n in range(total))


def read(spool: Spool, total: int = TOTAL) -> dict[str, Any]:
    """All that a reader gives."""
    reader, sink = RequestReader(spool, BATCH), io.BytesIO()
    reader.copy_lines([(0, 3), (total - 2, total)], sink)
    with RequestReader(spool, BATCH).open_lines(1, total) as (file, start, end):
        file.seek(start)
        lines = file.read(end - start)
    return {
        "keys": reader.keys(range(total)),
        "some keys": RequestReader(spool, BATCH).keys([7, 3, total - 1]),
        "all keys": list(RequestReader(spool, BATCH).all_keys()),
        "ranges": [reader.byte_range(n, n + 1) for n in (0, 1, total - 1)],
        "cuts": list(RequestReader(spool, BATCH).cuts(total, max_requests=9, max_bytes=700)),
        "copied": sink.getvalue(),
        "lines": lines,
    }


def test_every_layout_gives_the_same(spool: Spool, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = write(spool, items())
    found = read(spool)
    assert [key.key for key in found["all keys"]] == [f"k\n{n}" for n in range(TOTAL)]
    assert RequestReader(spool, BATCH).damaged(TOTAL, lines=True, groups=False) is None
    assert spool.names(FILES.folder) == (
        [FILES.index, FILES.keys, FILES.requests] if layout == "several blobs" else [FILES.index]
    )
    monkeypatch.undo()
    spool.delete_folder(FILES.folder)

    assert write(spool, items()) == accepted
    assert read(spool) == found


def test_groups_and_sizes_are_the_same_in_every_layout(spool: Spool, layout: str) -> None:
    def grouped(total: int) -> Iterator[dict[str, Any]]:
        for n, item in enumerate(items(total)):
            properties = {name: {"type": kind} for name, kind in (("a", "STRING"), ("b", "INTEGER"))[: n % 3]}
            schema = {"type": "OBJECT", "properties": properties} if properties else {"type": "STRING"}
            yield item | {"config": {"response_mime_type": "application/json", "response_schema": schema}}

    accepted = write(spool, grouped(90), ProviderName.VERTEX)
    reader = RequestReader(spool, BATCH)

    found = list(reader.groups() or ())

    assert accepted.groups > 1
    assert len({group for group, *_ in found}) == accepted.groups
    assert sum(size for _, size, _ in found) == accepted.bytes
    assert RequestReader(spool, BATCH).damaged(90, lines=True, groups=True) is None
    assert RequestReader(spool, BATCH).damaged(90, lines=True, groups=False) is None


def test_requests_of_one_group_have_no_groups(spool: Spool, layout: str) -> None:
    write(spool, items())
    assert RequestReader(spool, BATCH).groups() is None


def test_lines_that_stay_elsewhere_are_not_in_the_spool(spool: Spool, layout: str) -> None:
    shaper = shaper_of(ProviderName.VERTEX, model="m", kind=Kind.GENERATION)
    with InPlaceWriter(spool, BATCH, shaper, max_request_bytes=10_000) as writer:
        for n, item in enumerate(items()):
            writer.add_at(1000 + 100 * n, item, n)
        writer.finish_at(90_000, "the source")
    KeyIndex.write(spool, BATCH)

    reader = RequestReader(spool, BATCH)

    assert reader.byte_range(0, 2) == (1000, 1200)
    assert reader.byte_range(TOTAL - 1, TOTAL) == (1000 + 100 * (TOTAL - 1), 90_000)
    assert reader.keys([3])[3].key == "k\n3"
    assert RequestReader(spool, BATCH).damaged(TOTAL, lines=False, groups=False) is None
    assert KeyIndex.is_whole(spool, BATCH, TOTAL)
    assert KeyIndex.read(spool, BATCH).ordinal("k\n7") == 7
    assert not spool.exists(FILES.requests)
    assert spool.exists(FILES.keys) == (layout == "several blobs")


@pytest.mark.parametrize("again", [0, 400])
def test_a_key_that_comes_twice_is_refused_and_a_small_batch_leaves_nothing(
    spool: Spool, layout: str, again: int
) -> None:
    def twice() -> Iterator[dict[str, Any]]:
        yield from items()
        yield {"key": f"k\n{again}", "contents": "x"}

    with pytest.raises(InvalidRequest, match=f"already used by request {again + 1}"):
        write(spool, twice())
    assert bool(spool.names(FILES.folder)) == (layout == "several blobs")


def _shortened(name: str, by: int) -> Callable[[Spool], None]:
    def shorten(spool: Spool) -> None:
        content = spool.read(name)
        with spool.write(name) as file:
            file.write(content[: len(content) - by])

    return shorten


def _replaced(name: str, start: int, by: bytes) -> Callable[[Spool], None]:
    def replace(spool: Spool) -> None:
        content = spool.read(name)
        with spool.write(name) as file:
            file.write(content[:start] + by + content[start + len(by) :])

    return replace


DAMAGE: dict[str, tuple[set[str], Callable[[Spool], None]]] = {
    "the index is gone": (set(LAYOUTS), lambda spool: spool.delete(FILES.index)),
    "the index is empty": (set(LAYOUTS), _shortened(FILES.index, 1 << 30)),
    "the index has no header": (set(LAYOUTS), _replaced(FILES.index, 0, bytes(40))),
    "the index is short": (set(LAYOUTS), _shortened(FILES.index, 5)),
    "the sizes are odd": ({"one read", "several reads"}, _replaced(FILES.index, 8, b"\xff" * 8)),
    "the keys are gone": ({"several blobs"}, lambda spool: spool.delete(FILES.keys)),
    "the keys are short": ({"several blobs"}, _shortened(FILES.keys, 1)),
    "the lines are gone": ({"several blobs"}, lambda spool: spool.delete(FILES.requests)),
    "the lines are short": ({"several blobs"}, _shortened(FILES.requests, 1)),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_found_and_named_and_nothing_is_read_short(spool: Spool, layout: str, case: str) -> None:
    layouts, damage = DAMAGE[case]
    if layout not in layouts:
        pytest.skip("there is no such file")
    write(spool, items())
    damage(spool)
    name = {"keys": FILES.keys, "lines": FILES.requests}.get(case.split()[1], FILES.index)

    assert RequestReader(spool, BATCH).damaged(TOTAL, lines=True, groups=False) == name
    with pytest.raises(DamagedBlob, match=name):
        read(spool)


def test_a_whole_batch_is_whole_to_a_reader_that_needs_its_keys_only(spool: Spool, layout: str) -> None:
    write(spool, items())
    in_redis = RequestReader(spool, BATCH, lambda: spool.read(FILES.index))

    assert RequestReader(spool, BATCH).damaged(TOTAL, lines=False, groups=False) is None
    if layout != "several blobs":
        assert in_redis.damaged(TOTAL, lines=False, groups=False) is None
        _shortened(FILES.index, 1)(spool)
        assert RequestReader(spool, BATCH).damaged(TOTAL, lines=False, groups=False) == FILES.index


@pytest.mark.parametrize("entry", [bytes(ENTRY.size), b"\xff" * ENTRY.size], ids=["zeros", "ones"])
def test_an_index_that_points_elsewhere_is_damage_and_no_other_error(spool: Spool, layout: str, entry: bytes) -> None:
    write(spool, items())
    _replaced(FILES.index, HEADER_BYTES + 3 * ENTRY.size, entry)(spool)

    for ordinals in ([2], [3], [2, 3, 5]):
        with pytest.raises(DamagedBlob, match="batches/batch/"):
            RequestReader(spool, BATCH).keys(ordinals)
