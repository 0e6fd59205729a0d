"""The requests of a small batch wait in Redis: they need no file of their own, and get into those of their bundle."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack

from lowtide import Batch, BatchState, KeyNotFound, ResultNotReady
from lowtide.protocol import BatchFiles, Stage, job_id, keys
from lowtide.spool import DamagedBlob, RequestReader, Spool
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.settle import settle
from lowtide_worker.stages.submit import submit
from lowtide_worker.state import Done, HeldBatch, HeldJob, Ordinals


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("small")) as stack:
        yield stack


@pytest.fixture
def runtime(stack: Stack) -> Runtime:
    stack.empty_redis()
    return Runtime(stack.worker_settings())


def shared(stack: Stack, count: int, *, share: bool = True, key: str | None = None, **settings: Any) -> Batch:
    return stack.queue(**settings).submit(blurbs(count), model=MODEL, share=share, idempotency_key=key)


def stored(stack: Stack, batch: Batch) -> bool:
    return stack.redis.hexists(keys.requests(str(batch.status().bundle)), batch.id)


def has_files(stack: Stack, batch_id: str) -> bool:
    return batch_id in Spool(stack.env["LOWTIDE_SPOOL_URL"]).folders("batches")


def reader_of(runtime: Runtime, batch: Batch) -> RequestReader:
    status = batch.status()
    return runtime.requests.reader(batch.id, status.bundle, status.total)


def cut(runtime: Runtime, bundle: str) -> None:
    """Runs the stage that writes the files of a bundle."""
    member = keys.batch_member(bundle)
    held = runtime.clock.begin(Stage.SUBMIT, member, int(runtime.redis.hget(keys.entity(member), "token") or 0))
    assert isinstance(held, HeldBatch)
    assert isinstance(submit(runtime, held), Done)


def test_a_small_batch_has_its_requests_in_redis_until_its_bundle_has_them(stack: Stack, runtime: Runtime) -> None:
    batches = [shared(stack, 10), shared(stack, 3)]
    bundle = str(batches[0].status().bundle)
    before = [reader_of(runtime, batch).keys(range(3)) for batch in batches]
    assert all(stored(stack, batch) and not has_files(stack, batch.id) for batch in batches)

    cut(runtime, bundle)

    assert stack.redis.exists(keys.requests(bundle)) == 0
    assert has_files(stack, bundle)
    assert [reader_of(runtime, batch).keys(range(3)) for batch in batches] == before
    with pytest.raises(ResultNotReady):
        batches[1].result("sku-2")
    with pytest.raises(KeyNotFound):
        batches[1].result("sku-3")


@pytest.mark.parametrize(
    ("share", "settings"),
    [
        (False, {}),
        (True, {"small_batch_bytes": 0}),
        (True, {"small_batch_bytes": 150}),
        (True, {"linger_requests": 10}),
    ],
    ids=["a job of its own", "switched off", "too large", "requests enough for a job"],
)
def test_any_other_batch_has_files(stack: Stack, runtime: Runtime, share: bool, settings: dict[str, Any]) -> None:
    batch = shared(stack, 10, share=share, **settings)

    assert has_files(stack, batch.id)
    assert not stored(stack, batch)
    assert len(reader_of(runtime, batch).keys(range(10))) == 10


def test_a_bundle_may_have_batches_with_and_without_files(stack: Stack, runtime: Runtime) -> None:
    batches = [shared(stack, 4), shared(stack, 4, small_batch_bytes=0)]
    bundle = str(batches[1].status().bundle)
    assert batches[0].status().bundle == bundle

    cut(runtime, bundle)

    found = RequestReader(runtime.spool, bundle)
    assert found.damaged(8, lines=True, groups=False) is None
    assert [line.key for line in found.all_keys()] == [f"sku-{n}" for n in (0, 1, 2, 3)] * 2


ODD: dict[str, Callable[[Path], object]] = {
    "a folder": lambda place: place.mkdir(),
    "a pipe": os.mkfifo,
    "a link out of the spool": lambda place: place.symlink_to("/dev/null"),
}


@pytest.mark.parametrize("cancelled", [False, True], ids=["wanted", "cancelled"])
@pytest.mark.parametrize("odd", [*ODD, "a bad sector"])
def test_a_batch_whose_file_cannot_be_opened_stops_no_other_of_its_bundle(
    stack: Stack, odd: str, cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.empty_redis()
    runtime = Runtime(stack.worker_settings(output_grace_seconds=0))
    batches = [shared(stack, 2, small_batch_bytes=0) for _ in range(3)]
    bundle = str(batches[0].status().bundle)
    place = stack.directory / "spool" / BatchFiles(batches[1].id).index
    if odd in ODD:
        place.unlink()
        ODD[odd](place)
    else:
        opened = os.open

        def opens(path: str, *args: int, **options: int) -> int:
            if path == str(place):
                raise OSError(errno.EIO, "Input/output error")
            return opened(path, *args, **options)

        monkeypatch.setattr(os, "open", opens)
    if cancelled:
        batches[1].cancel()

    cut(runtime, bundle)

    end = BatchState.CANCELLING if cancelled else BatchState.FAILED
    assert [batch.status().state for batch in batches] == [BatchState.RUNNING, end, BatchState.RUNNING]
    found = runtime.ledger.unsettled(bundle, Ordinals(first=0, last=6))
    assert found is not None
    assert list(found) == [0, 1, 4, 5]


def test_a_limit_of_slots_that_is_no_number_stops_no_bundle(stack: Stack, runtime: Runtime) -> None:
    batch = shared(stack, 2)
    stack.redis.set(keys.limit("gemini"), "x")

    cut(runtime, str(batch.status().bundle))

    assert batch.status().state is BatchState.RUNNING


def test_a_second_submit_under_the_same_key_stores_nothing(stack: Stack, runtime: Runtime) -> None:
    first, again = shared(stack, 4, key="nightly"), shared(stack, 4, key="nightly")

    assert again.id == first.id
    assert stack.redis.hlen(keys.requests(str(first.status().bundle))) == 1
    assert len(reader_of(runtime, first).keys(range(4))) == 4


@pytest.mark.parametrize(
    "value",
    [b"", b"not compressed", zlib.compress(b"x" * 100)[:-4], zlib.compress(bytes(1 << 24)), zlib.compress(b"short")],
    ids=["nothing", "another form", "cut", "much larger than any batch", "another content"],
)
def test_damaged_requests_in_redis_are_no_requests(stack: Stack, runtime: Runtime, value: bytes) -> None:
    batch = shared(stack, 4)
    bundle = str(batch.status().bundle)
    stack.redis.hset(keys.requests(bundle), batch.id, value)

    with pytest.raises(DamagedBlob):
        reader_of(runtime, batch).keys(range(4))
    [waiting] = runtime.requests.waiting(bundle, [batch.id])
    with pytest.raises(DamagedBlob):
        waiting.keys(range(4))


BEGUN: dict[str, dict[Any, Any]] = {
    "the answers that a job continued": {"partial": "batches/b0/partial/1-lost.bin", "continuations": 1},
    "the answers that came with a job": {"partial_segments": "0:0011223344556677"},
}


FILES: dict[str, Callable[[bytes], bytes]] = {
    "whole": lambda content: content,
    "cut": lambda content: content[:-1],
    "not readable": lambda content: content.replace(b'","sku-', b'"!"sku-'),
}


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize("begun", BEGUN)
def test_only_a_bundle_whose_own_files_are_damaged_ends_all_its_batches(stack: Stack, begun: str, files: str) -> None:
    stack.empty_redis()
    runtime = Runtime(stack.worker_settings(output_grace_seconds=0))
    batches = [shared(stack, 3), shared(stack, 3)]
    bundle = str(batches[0].status().bundle)
    cut(runtime, bundle)
    stack.redis.hset(keys.batch(bundle), "deadline", "1")
    job = keys.job_member(job_id(bundle, 1))
    fields: dict[Any, Any] = {"stage": Stage.SETTLE, "state": "expired", "token": 1, "segments": 1, **BEGUN[begun]}
    stack.redis.hset(keys.entity(job), mapping=fields)
    file = BatchFiles(bundle).keys
    runtime.spool.put(file, FILES[files](runtime.spool.read(file)))
    held = runtime.clock.begin(Stage.SETTLE, job, 1)
    assert isinstance(held, HeldJob)

    done = settle(runtime, held)

    assert isinstance(done, Done)
    if files != "whole":
        assert [batch.status().state for batch in batches] == [BatchState.FAILED] * 2
        return
    assert BatchState.FAILED not in [batch.status().state for batch in batches]
    [rest] = runtime.spool.names(BatchFiles(bundle).job(1))
    rows = list(runtime.spool.lines(rest))
    assert len(rows) == 6
    # The cost of the lost answers is unknown.
    assert all(b'"earlier_cost":null' in row and b'"status":"expired"' in row for row in rows)


def test_a_bundle_that_many_batches_have_joined_waits_only_while_more_come(stack: Stack, runtime: Runtime) -> None:
    batches = [shared(stack, 1, linger_seconds=600, linger_requests=13) for _ in range(9)]
    bundle = keys.batch_member(str(batches[0].status().bundle))
    began = float(stack.redis.hget(keys.entity(bundle), "created") or 0)
    assert due(stack, bundle) == pytest.approx(began + 600, abs=1e-3)

    for _ in range(2):
        before, at = due(stack, bundle), runtime.clock.now()
        shared(stack, 1, linger_seconds=600, linger_requests=13)
        assert at + 150 <= due(stack, bundle) <= runtime.clock.now() + 150
        assert due(stack, bundle) != before
    # A worker that holds it keeps its lease.
    stack.redis.hset(keys.entity(bundle), "busy", 1)
    before = due(stack, bundle)
    shared(stack, 1, linger_seconds=600, linger_requests=13)
    assert due(stack, bundle) == before
    # With enough requests it is due at once, and no batch that comes later delays it.
    stack.redis.hset(keys.entity(bundle), "busy", 0)
    for _ in range(2):
        shared(stack, 1, linger_seconds=600, linger_requests=13)
        assert due(stack, bundle) < runtime.clock.now() + 10


def test_a_bundle_is_not_kept_open_longer_than_it_lingers(stack: Stack, runtime: Runtime) -> None:
    batches = [shared(stack, 1, linger_seconds=600) for _ in range(10)]
    bundle = keys.batch_member(str(batches[0].status().bundle))
    for age, expected in ((500, 100), (601, 100)):
        at = runtime.clock.now()
        stack.redis.hset(keys.entity(bundle), "lingers_until", at - age + 600)
        # The linger of the first batch decides, whatever later ones would wait.
        shared(stack, 1, linger_seconds=60_000)
        assert due(stack, bundle) <= at + expected + 1


def due(stack: Stack, member: str) -> float:
    """When a batch is due, in Unix seconds."""
    score = stack.redis.zscore(keys.clock(Stage.SUBMIT.queue), member)
    assert isinstance(score, float)
    return score
