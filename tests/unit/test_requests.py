from __future__ import annotations

import gc
import io
import itertools
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.scratch import emptied

from lowtide import InvalidBatch, InvalidRequest, Request, SpoolError
from lowtide.protocol.wire_keys import WireKeys
from lowtide.shaping import json_lines, shaper_of
from lowtide.spool import Accepted, RequestReader, RequestWriter, Spool
from lowtide.spool.format import PACKED_BYTES
from lowtide.states import Kind, ProviderName

BATCH = "batch"
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30) | st.sampled_from(
    ["\n", '"', "\\", "\r\n", "a\nb", "\x00", "\u2028", "🌊", "null", "[]", '","', "a\ufeff", " ", "é", "e\u0301"]
)
METADATA = st.none() | st.dictionaries(KEYS, KEYS, max_size=2)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "spool"))


def intake(spool: Spool, items: Iterable[object], *, batch: str = BATCH, limit: int = 10_000_000) -> Accepted:
    with RequestWriter(
        spool, batch, shaper_of(ProviderName.GEMINI, model="m", kind=Kind.GENERATION), max_request_bytes=limit
    ) as writer:
        for item in items:
            writer.add(item)
        return writer.finish()


def ask(key: str, text: str = "hello", metadata: dict[str, str] | None = None) -> dict[str, Any]:
    return {"key": key, "contents": text, "metadata": metadata}


def content(spool: Spool, total: int, batch: str = BATCH) -> bytes:
    """All lines of a batch."""
    sink = io.BytesIO()
    RequestReader(spool, batch).copy_lines([(0, total)], sink)
    return sink.getvalue()


def left(tmp_path: Path) -> list[Path]:
    return [path for path in tmp_path.rglob("*") if path.is_file()]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(KEYS, METADATA), min_size=1, max_size=30, unique_by=lambda item: item[0]))
def test_keys_and_metadata_come_back_as_they_went_in(items: list[tuple[str, dict[str, str] | None]]) -> None:
    spool = emptied()
    accepted = intake(spool, (ask(key, metadata=metadata) for key, metadata in items))
    assert accepted.total == len(items)
    found = RequestReader(spool, BATCH).keys(range(len(items)))
    assert [found[ordinal].key for ordinal in range(len(items))] == [key for key, _ in items]
    for ordinal, (_, metadata) in enumerate(items):
        assert json.loads(bytes(found[ordinal].metadata)) == (metadata or None)


@settings(deadline=None, max_examples=60)
@given(st.lists(KEYS, min_size=1, max_size=30, unique=True), KEYS)
def test_the_lines_are_the_providers_and_the_index_points_at_them(keys: list[str], text: str) -> None:
    spool = emptied()
    accepted = intake(spool, (ask(key, text * (1 + n % 3)) for n, key in enumerate(keys)))
    found, reader = content(spool, len(keys)), RequestReader(spool, BATCH)
    assert accepted.bytes == len(found)
    assert found.count(b"\n") == len(keys)
    for ordinal, key in enumerate(keys):
        start, end = reader.byte_range(ordinal, ordinal + 1)
        assert found[end - 1 : end] == b"\n"
        line = json.loads(found[start:end])
        assert line["key"] == WireKeys(BATCH).of(ordinal, key)
        assert line["request"]["contents"][0]["parts"][0]["text"] == text * (1 + ordinal % 3)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=60),
    st.integers(1, 20),
    st.integers(1, 3000),
)
def test_cuts_cover_everything_once_and_keep_both_limits(sizes: list[int], max_requests: int, max_bytes: int) -> None:
    spool = emptied()
    total = intake(spool, (ask(str(n), "x" * size) for n, size in enumerate(sizes))).total
    reader = RequestReader(spool, BATCH)
    cuts = list(reader.cuts(total, max_requests=max_requests, max_bytes=max_bytes))
    assert [ordinal for first, last in cuts for ordinal in range(first, last)] == list(range(total))
    for first, last in cuts:
        start, end = reader.byte_range(first, last)
        assert last > first
        assert last - first <= max_requests
        # `submit` has refused what does not fit one job by itself.
        assert end - start <= max_bytes or last - first == 1
    for (first, last), _ in itertools.pairwise(cuts):
        start, end = reader.byte_range(first, last + 1)
        assert last + 1 - first > max_requests or end - start > max_bytes, "cut too early"


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9])
def test_cuts_at_the_very_limits(spool: Spool, count: int) -> None:
    total = intake(spool, (ask(str(n)) for n in range(count))).total
    reader = RequestReader(spool, BATCH)
    size = reader.byte_range(0, 1)[1]
    assert list(reader.cuts(total, max_requests=count, max_bytes=size * count)) == [(0, count)]
    assert list(reader.cuts(total, max_requests=1, max_bytes=size * count)) == [(n, n + 1) for n in range(count)]
    assert list(reader.cuts(total, max_requests=count, max_bytes=2 * size - 1)) == [(n, n + 1) for n in range(count)]
    assert len(list(reader.cuts(total, max_requests=count, max_bytes=2 * size))) == (count + 1) // 2


def test_cuts_of_many_requests_read_the_index_in_blocks(spool: Spool) -> None:
    total = intake(spool, (ask(str(n)) for n in range(10_000))).total
    cuts = list(RequestReader(spool, BATCH).cuts(total, max_requests=999, max_bytes=10**9))
    assert [last - first for first, last in cuts] == [999] * 10 + [10]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Spool:
    spool = Spool(str(tmp_path_factory.mktemp("large")))
    intake(spool, (ask(f"key\n{n}", metadata={"n": str(n)} if n % 3 else None) for n in range(20_000)))
    return spool


def test_an_ordinal_that_is_given_twice_gives_its_key(large: Spool) -> None:
    found = RequestReader(large, BATCH).keys([0, 0, 2])
    assert {ordinal: line.key for ordinal, line in found.items()} == {0: "key\n0", 2: "key\n2"}


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_ordinals_in_any_order_give_their_keys(large: Spool, data: st.DataObject) -> None:
    near = data.draw(st.integers(0, 19_000))
    ordinals = data.draw(
        st.lists(st.integers(0, 19_999) | st.integers(near, near + 900) | st.sampled_from([0, 19_999]), max_size=40)
    )
    found = RequestReader(large, BATCH).keys(iter(ordinals))
    assert {ordinal: line.key for ordinal, line in found.items()} == {n: f"key\n{n}" for n in ordinals}


def test_all_keys_of_a_large_batch_are_read_in_several_spans(large: Spool) -> None:
    found = RequestReader(large, BATCH).keys(reversed(range(20_000)))
    assert all(found[n].key == f"key\n{n}" for n in range(20_000))
    assert json.loads(bytes(found[1].metadata)) == {"n": "1"}


def test_lines_are_copied_by_runs(large: Spool) -> None:
    sink = io.BytesIO()
    RequestReader(large, BATCH).copy_lines(iter([(0, 1), (5, 8), (19_999, 20_000)]), sink)
    all_lines = content(large, 20_000).splitlines(keepends=True)
    assert sink.getvalue() == b"".join([all_lines[0], *all_lines[5:8], all_lines[19_999]])


# Duplicate keys


@pytest.mark.parametrize("gap", [1, 2, 300, 20_000])
def test_a_key_that_comes_twice_is_refused_with_its_place(spool: Spool, gap: int) -> None:
    keys = ["first", "twice", *(f"k{n}" for n in range(gap - 1)), "twice", "last"]
    with pytest.raises(InvalidRequest, match="already used by request 2") as caught:
        intake(spool, map(ask, keys))
    assert (caught.value.position, caught.value.key, caught.value.field) == (gap + 1, "twice", "key")


def test_of_several_duplicates_the_first_repetition_is_reported(spool: Spool) -> None:
    with pytest.raises(InvalidRequest) as caught:
        intake(spool, map(ask, ["a", "b", "c", "b", "a", "b"]))
    assert (caught.value.position, caught.value.key) == (3, "b")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from("abcdefghij") | KEYS, min_size=1, max_size=12))
def test_a_batch_is_accepted_exactly_if_its_keys_are_unique(keys: list[str]) -> None:
    spool = emptied()
    if len(set(keys)) == len(keys):
        assert intake(spool, map(ask, keys)).total == len(keys)
        return
    with pytest.raises(InvalidRequest) as caught:
        intake(spool, map(ask, keys))
    again = next(n for n, key in enumerate(keys) if key in keys[:n])
    assert (caught.value.position, caught.value.key) == (again, keys[again])


def test_keys_that_only_look_alike_are_different(spool: Spool) -> None:
    keys = ["a", "A", " a", "a ", "a\x00", "á", "a\u0301", "а", "1", "01", "1.0"]  # noqa: RUF001 - the point of it
    assert intake(spool, map(ask, keys)).total == len(keys)


def test_keys_with_equal_hashes_are_told_apart(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("writer", "repeated_keys"):
        monkeypatch.setattr(f"lowtide.spool.{module}.hash", lambda _: 7, raising=False)
    assert intake(spool, map(ask, ["a", "b", "c"])).total == 3
    with pytest.raises(InvalidRequest, match="already used by request 2"):
        intake(spool, map(ask, ["a", "b", "c", "b"]))


@pytest.mark.parametrize("again", ["a", "c", "d"])
def test_a_duplicate_in_a_batch_too_large_for_one_blob_is_refused(spool: Spool, again: str) -> None:
    large = "x" * (PACKED_BYTES // 2)
    requests = [Request(key=key, contents=large) for key in "abcde"]
    assert intake(spool, requests).total == 5
    with pytest.raises(InvalidRequest, match=f"already used by request {'abcde'.index(again) + 1}"):
        intake(spool, [*requests, Request(key=again, contents="y")])


def test_a_duplicate_in_a_file_with_empty_lines_is_reported_by_line(spool: Spool) -> None:
    text = ["", '{"key":"a","contents":"x"}', "", "", '{"key":"b","contents":"x"}', "", '{"key":"a","contents":"x"}']

    def submit() -> None:
        with RequestWriter(
            spool, BATCH, shaper_of(ProviderName.GEMINI, model="m", kind=Kind.GENERATION), max_request_bytes=1000
        ) as writer:
            for position, item in json_lines(line.encode() for line in text):
                writer.add(item, position)
            writer.finish()

    with pytest.raises(InvalidRequest, match="already used by request 2;") as caught:
        submit()
    assert caught.value.position == 6


# Refusals, and what they leave behind


def test_a_batch_without_requests_is_refused(spool: Spool, tmp_path: Path) -> None:
    with pytest.raises(InvalidBatch, match="empty"):
        intake(spool, [])
    assert left(tmp_path) == []


def test_a_bad_request_is_refused_with_place_and_key_and_leaves_nothing(spool: Spool, tmp_path: Path) -> None:
    items: list[object] = [ask(str(n)) for n in range(5000)]
    items[4321] = {"key": "bad", "contents": "x", "config": {"temprature": 1}}
    with pytest.raises(InvalidRequest) as caught:
        intake(spool, items)
    assert str(caught.value) == (
        'request 4322 (key "bad"), config.temprature: unknown field of a generation config; did you mean temperature?'
    )
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("item", "key"),
    [(None, None), ({"key": 5}, None), ({}, None), (Request(key="", contents="a"), ""), ({"key": "k"}, "k")],
)
def test_a_bad_request_is_named_by_its_key_where_it_has_one(spool: Spool, item: object, key: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        intake(spool, [ask("fine"), item])
    assert (caught.value.position, caught.value.key) == (1, key)


def test_a_request_larger_than_a_job_is_refused_and_one_just_as_large_is_not(spool: Spool, tmp_path: Path) -> None:
    size = intake(spool, [ask("k")]).bytes
    spool.delete_folder("batches")
    with pytest.raises(InvalidRequest, match=f"{size:,} bytes, more than the {size - 1:,}") as caught:
        intake(spool, [ask("k")], limit=size - 1)
    assert (caught.value.key, caught.value.position) == ("k", 0)
    assert left(tmp_path) == []
    assert intake(spool, [ask("k")], limit=size).bytes == size


@pytest.mark.parametrize(
    "problem",
    [
        ValueError("theirs"),
        OSError("theirs"),
        TimeoutError("theirs"),
        KeyboardInterrupt(),
    ],
)
@pytest.mark.parametrize("after", [0, 5, 5000])
def test_an_error_of_the_users_own_iterable_reaches_the_user_as_it_is_and_leaves_nothing(
    spool: Spool, tmp_path: Path, problem: BaseException, after: int
) -> None:
    def items() -> Iterator[object]:
        yield from (ask(str(n)) for n in range(after))
        raise problem

    with pytest.raises(type(problem)) as caught:
        intake(spool, items())
    assert caught.value is problem
    assert left(tmp_path) == []


def test_a_spool_that_cannot_be_written_is_a_spool_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SpoolError):
        intake(Spool(str(tmp_path / "file")), [ask("k")])


def test_two_batches_lie_side_by_side(spool: Spool) -> None:
    intake(spool, [ask("a")])
    intake(spool, [ask("b"), ask("c")], batch="other")
    assert RequestReader(spool, BATCH).keys([0])[0].key == "a"
    assert RequestReader(spool, "other").keys([1])[1].key == "c"
    assert not set(content(spool, 1).split()) & set(content(spool, 2, "other").split())


# The fingerprint


LABELS = st.sampled_from([None, {"m": "x"}, {"m": "y"}])
ITEMS = st.tuples(st.sampled_from("abcd"), st.sampled_from(["x", "y", "xy"]), LABELS)
BATCHES = st.lists(ITEMS, min_size=1, max_size=4, unique_by=lambda item: item[0])


@settings(deadline=None, max_examples=80)
@given(BATCHES, BATCHES)
def test_fingerprints_are_equal_exactly_if_the_content_is(one: list[Any], other: list[Any]) -> None:
    prints = []
    for batch, items in (("first", one), ("second", other)):
        prints.append(intake(emptied(), (ask(*item) for item in items), batch=batch).fingerprint)
    assert (prints[0] == prints[1]) == (one == other)


def test_the_fingerprint_does_not_depend_on_the_form_of_a_request() -> None:
    forms: list[object] = [
        Request(key="k", contents="hello", config={"top_p": 0.5}),
        {"key": "k", "contents": ["hello"], "config": {"topP": 0.5}, "metadata": {}},
        {
            "key": "k",
            "metadata": None,
            "request": {
                "contents": [{"role": "user", "parts": [{"text": "hello"}]}],
                "generation_config": {"topP": 0.5},
            },
        },
    ]
    assert len({intake(emptied(), [form]).fingerprint for form in forms}) == 1


def test_text_moved_from_one_request_to_the_next_changes_the_fingerprint() -> None:
    one = intake(emptied(), [ask("a", "xy"), ask("b", "z")]).fingerprint
    other = intake(emptied(), [ask("a", "x"), ask("b", "yz")]).fingerprint
    assert one != other


# Memory


@pytest.mark.thorough
def test_memory_stays_flat_however_many_requests_come(spool: Spool) -> None:
    count = 20_000
    one = ask("", "word " * 10)

    def items() -> Iterator[object]:
        for n in range(count):
            one["key"] = f"request-{n}"
            yield one

    gc.collect()
    tracemalloc.start()
    try:
        accepted = intake(spool, items())
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        cuts = sum(1 for _ in RequestReader(spool, BATCH).cuts(count, max_requests=1000, max_bytes=10**9))
        cut = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert accepted.total == count
    # As objects they would take ten times as much.
    assert accepted.bytes > 2_200_000
    assert cuts == 20
    assert written < 16 * count + 1_500_000
    assert cut < 16 * count + 1_500_000
