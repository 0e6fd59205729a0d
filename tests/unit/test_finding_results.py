"""A request is found by its key, and its result by its ordinal, without reading the others."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from pydantic import SecretStr
from tests.records import a_batch, a_job, a_segment, held_segment

from lowtide import Request
from lowtide.lookup import ResultFinder
from lowtide.protocol import BatchFiles
from lowtide.settings import Settings
from lowtide.shaping import shaper_of
from lowtide.spool import (
    ENTRY_BYTES,
    DamagedBlob,
    KeyIndex,
    KeyLine,
    RequestReader,
    RequestWriter,
    SegmentPlaces,
    Spool,
    Stored,
    decode_entry,
    find_ordinal,
    line_ends,
)
from lowtide.states import Kind, ProviderName, UnknownFields
from lowtide.store import Carrier, ResultPlaces, Store
from lowtide_worker.output import Joined, judge
from lowtide_worker.providers import OutputRow
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.deliver import _write_results

COUNT = 20_000
BATCH = "b0000000000000000000"


class CountingSpool(Spool):
    """A spool that counts the bytes that it reads."""

    read_bytes = 0

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        data = super().read(name, start, end)
        self.read_bytes += len(data)
        return data


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> CountingSpool:
    spool = CountingSpool(str(tmp_path_factory.mktemp("spool")))
    shaper = shaper_of(
        ProviderName.GEMINI, model="gemini-3.5-flash", kind=Kind.GENERATION, unknown_fields=UnknownFields.REFUSE
    )
    with RequestWriter(spool, BATCH, shaper, max_request_bytes=1 << 20) as writer:
        for number in range(COUNT):
            writer.add(Request(key=f"order/{number}", contents="Why is the sea salty?"))
        writer.finish()
    return spool


def test_each_key_of_a_large_batch_is_found_by_a_few_kilobytes(spool: CountingSpool) -> None:
    reader = RequestReader(spool, BATCH)
    assert find_ordinal(spool, BATCH, reader, "order/0", COUNT) == 0
    chosen = random.Random(7).sample(range(COUNT), 200)

    spool.read_bytes = 0
    assert [find_ordinal(spool, BATCH, reader, f"order/{number}", COUNT) for number in chosen] == chosen
    assert spool.read_bytes < 200 * (64 << 10)
    assert find_ordinal(spool, BATCH, reader, "order/20000", COUNT) is None


def test_a_search_ends_where_the_hashes_are_all_at_one_end(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    with spool.write(f"batches/{BATCH}/keyindex.bin") as file:
        for number in range(5000):
            file.write(number.to_bytes(8, "little") + number.to_bytes(8, "little"))

    assert KeyIndex.search(spool, BATCH, "a", 5000) == []


def test_an_account_that_may_only_read_finds_keys_all_the_same(
    spool: CountingSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.delete(f"batches/{BATCH}/keyindex.bin")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(spool._storage, "write", refuse)
    assert find_ordinal(spool, BATCH, RequestReader(spool, BATCH), "order/19999", COUNT) == COUNT - 1


def test_files_are_searched_for_a_result_without_an_entry_only_once_all_are_stored(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    line = b'{"key":"a","status":"succeeded"}'
    spool.put(BatchFiles(BATCH).result(1, 0), line + b"\n")
    finder = ResultFinder(BATCH, Store(Settings(redis_url=SecretStr("redis://127.0.0.1:1/0"))), spool)
    places = [ResultPlaces(is_settled=True, carriers=[Carrier(number=1, segments=1, position=0, stored=None)])]

    assert finder.lines(None, {0: "a"}, places, are_complete=False) == {}
    assert finder.lines(None, {0: "a"}, places, are_complete=True) == {0: line}


def test_a_search_ends_with_the_files_of_the_job_that_ran_last(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    line = b'{"key":"a","status":"succeeded"}'
    spool.put(BatchFiles(BATCH).result(2, 0), line + b"\n")
    spool.put(BatchFiles(BATCH).result(1, 0), b'{"key":"a","status":"failed"}\n')
    finder = ResultFinder(BATCH, Store(Settings(redis_url=SecretStr("redis://127.0.0.1:1/0"))), spool)
    carriers = [Carrier(number=number, segments=1, position=0, stored=None) for number in (2, 1)]

    assert finder.lines(None, {0: "a"}, [ResultPlaces(True, carriers)], are_complete=True) == {0: line}


@pytest.mark.parametrize(
    ("job", "indexed"),
    [
        ({"last": 5_000_000, "sparse": True}, False),
        ({"last": 250_000, "sparse": True}, True),
        ({"last": 5_000_000, "sparse": True, "requests": 100_000}, True),
        ({"last": 5_000_000}, True),
    ],
    ids=["few of many", "of a short range", "of many", "all of a range"],
)
def test_few_requests_of_a_long_range_have_no_index_that_is_as_long(
    tmp_path: Path, job: dict[str, Any], indexed: bool
) -> None:
    spool = Spool(str(tmp_path))
    record = a_job(f"{BATCH}-2", **{"requests": 2, **job})
    segment = held_segment(a_segment(record.id, 0), a_batch(BATCH), job=record)
    answer = OutputRow("k", msgspec.Raw(b'{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}'))
    results = [Joined(n, KeyLine("w", f"k{n}"), answer.response, judge(answer)) for n in (7, 249_999)]

    _, places = _write_results(cast("Runtime", SimpleNamespace(spool=spool)), segment, results, ())

    assert len(list(spool.lines(BatchFiles(BATCH).result(2, 0)))) == 2
    assert [at for at, _ in places] == ([7, 249_999] if indexed else [])


@pytest.mark.parametrize("step", [1, 7], ids=["in-order", "in-any-order"])
def test_an_index_says_where_each_line_begins(step: int) -> None:
    ordinals = [100 + number * step % 50 for number in range(50)]
    lines = [b"x" * ordinal + b"\n" for ordinal in ordinals]
    places = SegmentPlaces(3)
    places.add(ordinals[:20], line_ends(b"".join(lines[:20])))
    places.add(ordinals[20:], line_ends(b"".join(lines[20:])))

    index = bytearray(ENTRY_BYTES * 200)
    for first, entries in places.runs():
        index[ENTRY_BYTES * first : ENTRY_BYTES * first + len(entries)] = entries

    for at, ordinal in enumerate(ordinals):
        entry = bytes(index[ENTRY_BYTES * ordinal : ENTRY_BYTES * (ordinal + 1)])
        assert decode_entry(entry) == Stored(segment=3, offset=sum(map(len, lines[:at])))
    assert decode_entry(bytes(ENTRY_BYTES)) is None


def test_a_line_longer_than_one_read_is_whole_and_one_without_an_end_is_damage(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    long = b"x" * 300_000
    spool.put("lines.jsonl", b"short\n" + long + b"\ncut")

    assert spool.line("lines.jsonl", 0) == b"short"
    assert spool.line("lines.jsonl", 6) == long
    with pytest.raises(DamagedBlob, match="ends within a line"):
        spool.line("lines.jsonl", 6 + len(long) + 1)
