"""A result file of the Developer API is read by ranges, several at once, or as one stream where there are no ranges."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.sinks import BytesSink
from tests.stack import Stack

from lowtide.protocol import PAID, keys
from lowtide_emulator import Emulator
from lowtide_emulator import Settings as EmulatorSettings
from lowtide_worker.providers import IncompleteOutput, Missing, Output, Unavailable, Version
from lowtide_worker.providers.gemini import GeminiProvider
from lowtide_worker.providers.google.downloads import _AT_ONCE, _in_order
from lowtide_worker.settings import WorkerSettings

BODY = b"".join(b'{"key": "r%d", "response": {}}\n' % n for n in range(300))
RANGE = 1000
LAST = len(BODY) - 1
FILE = Output(job="batches/any", location="files/out")


def serving(ranges: bool) -> Iterator[Emulator]:
    with Emulator(EmulatorSettings(ranges=ranges)) as emulator:
        emulator.seed_files([{"name": "files/out", "text": BODY.decode(), "source": "GENERATED"}])
        yield emulator


@pytest.fixture(scope="module")
def by_ranges() -> Iterator[Emulator]:
    yield from serving(True)


@pytest.fixture(scope="module")
def in_one_stream() -> Iterator[Emulator]:
    yield from serving(False)


def download(emulator: Emulator, sink: BytesSink, rules: list[dict[str, object]] | None = None) -> int:
    """Downloads the file; returns the number of requests that this took."""
    given = {"GOOGLE_API_KEY": "key", "GOOGLE_GEMINI_BASE_URL": emulator.url, "segment_bytes": RANGE}
    provider = GeminiProvider(WorkerSettings.model_validate(given))
    before = emulator.stats().calls.get("files.download", 0)
    emulator.set_faults(rules or [])
    try:
        provider.download(FILE, sink)
    finally:
        emulator.set_faults([])
    return emulator.stats().calls["files.download"] - before


def rule(kind: str, after: int = 0, times: int | None = 1, **params: object) -> dict[str, object]:
    return {"on": "files.download", "kind": kind, "after": after, "times": times, "params": params}


@pytest.mark.parametrize("start", [0, 1, RANGE - 1, RANGE, 5000, LAST])
def test_a_file_is_read_by_ranges_from_any_offset_on(by_ranges: Emulator, start: int) -> None:
    sink = BytesSink(start)

    requests = download(by_ranges, sink)

    assert (sink.offset, sink.getvalue()) == (start, BODY[start:])
    assert sink.version.size == len(BODY)
    assert sink.version.etag
    assert requests == -(-(len(BODY) - start) // RANGE)


@pytest.mark.parametrize("start", [0, 5000])
def test_a_server_that_knows_no_ranges_is_asked_once(in_one_stream: Emulator, start: int) -> None:
    sink = BytesSink(start)

    assert download(in_one_stream, sink) == 1
    assert (sink.offset, sink.getvalue(), sink.version.size) == (0, BODY, len(BODY))


def test_a_file_is_read_in_one_stream_where_the_sink_wants_that(by_ranges: Emulator) -> None:
    sink = BytesSink(None)

    assert download(by_ranges, sink) == 1
    assert (sink.offset, sink.getvalue()) == (0, BODY)


def test_a_file_that_is_stored_already_is_read_from_its_beginning(by_ranges: Emulator) -> None:
    sink = BytesSink(len(BODY))

    assert download(by_ranges, sink) == 2
    assert (sink.offset, sink.getvalue()) == (0, BODY)


@pytest.mark.parametrize("after", [0, 5])
@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        "bytes */9000",
        "bytes 0-999",
        f"bytes 1-1000/{len(BODY)}",
        f"bytes 0-998/{len(BODY)}",
        "bytes 0-999/999999999999999999999999",
        "items 0-999/9000",
    ],
    ids=repr,
)
def test_a_range_that_is_another_than_the_one_asked_for_is_not_believed(
    by_ranges: Emulator, said: str | None, after: int
) -> None:
    sink = BytesSink()

    with pytest.raises(IncompleteOutput):
        download(by_ranges, sink, [rule("headers", after=after, headers={"content-range": said})])

    assert BODY.startswith(sink.getvalue())
    assert len(sink.getvalue()) in range(0, LAST, RANGE)


@pytest.mark.parametrize(
    "headers",
    [{"etag": '"another"'}, {"content-range": f"bytes 1000-1999/{len(BODY) + 1}"}, {"content-encoding": "identity"}],
    ids=["etag", "size", "encoding"],
)
def test_a_file_that_changes_between_two_ranges_is_not_put_together(
    by_ranges: Emulator, headers: dict[str, str]
) -> None:
    sink = BytesSink()

    with pytest.raises(IncompleteOutput):
        download(by_ranges, sink, [rule("headers", after=1, times=None, headers=headers)])

    assert sink.getvalue() == BODY[:RANGE]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (rule("status", after=3, code=404), Missing),
        (rule("status", after=3, code=503), Unavailable),
        (rule("drop_before", after=3), Unavailable),
        (rule("truncate", after=3, bytes=100), Unavailable),
        (rule("body", after=3, text="<html>"), IncompleteOutput),
    ],
    ids=["gone", "unavailable", "dropped", "cut", "a page"],
)
def test_what_came_before_a_failure_is_whole_ranges(
    by_ranges: Emulator, fault: dict[str, object], error: type[Exception]
) -> None:
    sink = BytesSink()

    with pytest.raises(error):
        download(by_ranges, sink, [fault])

    assert BODY.startswith(sink.getvalue())
    assert len(sink.getvalue()) % RANGE == 0


def test_ranges_are_fetched_together_and_come_in_order() -> None:
    together = threading.Barrier(_AT_ONCE, timeout=180)
    begun: list[int] = []

    used: set[int] = set()

    def fetch(number: int) -> Callable[[bytearray], memoryview]:
        def run(buffer: bytearray) -> memoryview:
            begun.append(number)
            used.add(id(buffer))
            if number < _AT_ONCE:
                together.wait()
            buffer[0] = number
            return memoryview(buffer)[:1]

        return run

    for number, data in enumerate(_in_order(map(fetch, range(40)), 10, threading.Event())):
        assert data == bytes([number])
        assert len(begun) <= number + _AT_ONCE
    # So many are in memory, whatever the size of the file.
    assert len(used) == _AT_ONCE


def test_two_versions_contradict_each_other_only_in_what_both_say() -> None:
    one = Version(10, '"a"')

    assert not any(one.contradicts(same) for same in (one, Version(), Version(10), Version(None, '"a"')))
    assert all(one.contradicts(other) for other in (Version(11), Version(10, '"b"'), Version(11, '"b"')))


# In a worker


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("ranges")
    small = {"LOWTIDE_SEGMENT_BYTES": "2000", "LOWTIDE_SEGMENT_ROWS": "5", "LOWTIDE_OUTPUT_GRACE_SECONDS": "60"}
    with Stack(folder, None, cloud=None, **small) as stack:
        stack.worker("-P", "threads", "-c", "2")
        yield stack


OTHER: dict[str, object] = {"etag": '"another"'}
CUT = rule("truncate", after=30, bytes=0)


@pytest.mark.parametrize(
    ("faults", "again"),
    [
        ([], False),
        ([CUT], False),
        ([rule("headers", after=30, headers=OTHER)], False),
        # What an earlier run has stored is of another file than the one that is there now.
        ([CUT, rule("headers", after=31, times=None, headers=OTHER)], True),
    ],
    ids=["nothing", "a cut", "another file for a moment", "another file from then on"],
)
def test_every_request_has_one_result_and_is_counted_once_after(
    stack: Stack, faults: list[dict[str, object]], again: bool
) -> None:
    stack.emulator.set_faults(faults)
    jobs = len(stack.emulator.jobs())

    batch = stack.queue().submit(blurbs(200), model=MODEL)
    status = batch.wait(timeout=180)

    assert (status.succeeded, status.total) == (200, 200)
    assert len({result.key for result in batch.results()}) == 200
    assert len(stack.emulator.jobs()) == jobs + 1
    assert (status.duplicates > 0) is again
    assert all(fault.fired for fault in stack.emulator.faults())
    paid, of_results = stack.redis.hmget(keys.batch(batch.id), PAID["total_token_count"], "total_token_count")
    assert paid == of_results
