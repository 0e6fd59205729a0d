"""The result of one request, by its key: of small and large batches, alone and in bundles, while they run and after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch, BatchNotFound, BatchQueue, KeyNotFound, Request, ResultNotReady, ResultStatus, SpoolError
from lowtide.protocol import BatchFiles, job_id, keys

LARGE = 1500
"""More requests than an index that stays in Redis has entries."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), LOWTIDE_SEGMENT_ROWS="200") as stack:
        stack.worker()
        yield stack


def by_key(batch: Batch) -> dict[str, str | None]:
    return {result.key: result.text for result in batch.results()}


def files(stack: Stack, batch_id: str) -> list[Path]:
    return list((stack.directory / "spool" / BatchFiles(batch_id).folder).rglob("*"))


def test_each_result_of_a_large_batch_whose_rows_come_in_any_order_is_found(stack: Stack, queue: BatchQueue) -> None:
    stack.emulator.set_faults([{"on": "job", "kind": "shuffle", "seed": 3}])
    fails_once = [Request(key=f"again-{n}", contents=f"[[error:8:1]] Article {n}.") for n in range(3)]
    batch = queue.submit([*blurbs(LARGE), *fails_once], model=MODEL, max_attempts=2)
    assert batch.wait(timeout=180).succeeded == LARGE + 3
    stack.emulator.set_faults([])

    expected = by_key(batch)
    asked = ["sku-0", f"sku-{LARGE - 1}", *(f"sku-{n}" for n in range(1, LARGE, 97)), "again-0", "again-2"]
    found = {key: batch.result(key) for key in asked}

    assert {key: result.text for key, result in found.items()} == {key: expected[key] for key in asked}
    assert found["again-0"].attempts == 2
    assert found["sku-0"].metadata == {"row": "0"}
    assert (found["sku-0"].batch_id, found["sku-0"].status) == (batch.id, ResultStatus.SUCCEEDED)
    # The index of the large job is a blob; that of the three that ran again is small.
    assert not stack.redis.exists(keys.result_index(job_id(batch.id, 1)))
    assert stack.redis.strlen(keys.result_index(job_id(batch.id, 2)))


def test_a_lookup_reads_its_own_line_only(stack: Stack, queue: BatchQueue) -> None:
    batch = queue.submit(blurbs(30), model=MODEL, share=False)
    batch.wait(timeout=180)
    [file] = [path for path in files(stack, batch.id) if path.parent.name == "results"]
    lines = file.read_bytes().split(b"\n")
    wanted = next(line for line in lines if line.startswith(b'{"key":"sku-7",'))
    file.write_bytes(b"\n".join(line if line == wanted else b"x" * len(line) for line in lines))

    assert batch.result("sku-7").text
    with pytest.raises(SpoolError, match=r"sku-8.*restore"):
        batch.result("sku-8")


def test_a_small_batch_has_no_file_more_and_loses_its_index_with_its_deletion(stack: Stack, queue: BatchQueue) -> None:
    batch = queue.submit(blurbs(3), model=MODEL, share=False)
    batch.wait(timeout=180)
    assert batch.result("sku-2").text

    names = {path.name for path in files(stack, batch.id)}
    assert "keyindex.bin" not in names
    assert "resultindex" not in names
    index = keys.result_index(job_id(batch.id, 1))
    assert stack.redis.exists(index)
    batch.delete()
    wait_until(lambda: not stack.redis.exists(keys.batch(batch.id)), what="the batch is deleted")
    assert not stack.redis.exists(index)


def test_results_of_batches_that_shared_a_job_are_found_in_their_bundle(stack: Stack) -> None:
    queue = stack.queue(share_jobs=True, linger_seconds=600, linger_requests=10)
    fails_once = [Request(key="again", contents="[[error:8:1]] Article.")]
    batches = [
        queue.submit([*blurbs(count), *more], model=MODEL, labels={"n": str(count)}, max_attempts=2)
        for count, more in ((2, []), (3, []), (4, fails_once))
    ]

    for batch, count in zip(batches, (2, 3, 4), strict=True):
        batch.wait(timeout=180)
        assert batch.status().bundle
        expected = by_key(batch)
        for key in expected:
            result = batch.result(key)
            assert (result.text, result.batch_id, result.labels) == (expected[key], batch.id, {"n": str(count)})
        with pytest.raises(KeyNotFound, match=rf"{batch.id}.*'sku-{count}'"):
            batch.result(f"sku-{count}")
    assert batches[2].result("again").attempts == 2
    batches[0].delete()
    wait_until(lambda: not stack.redis.exists(keys.batch(batches[0].id)), what="the batch is deleted")
    with pytest.raises(BatchNotFound):
        batches[0].result("sku-0")
    assert batches[1].result("sku-0").text == by_key(batches[1])["sku-0"]


def test_a_key_that_waits_and_a_key_that_is_not_there_are_two_errors(stack: Stack, queue: BatchQueue) -> None:
    with stack.held_jobs():
        batch = queue.submit(blurbs(2), model=MODEL, share=False)
        with pytest.raises(ResultNotReady, match=r"'sku-1' yet"):
            batch.result("sku-1")
        with pytest.raises(KeyNotFound, match=r"'sku-2'"):
            batch.result("sku-2")
        with pytest.raises(KeyNotFound, match="has no request"):
            batch.result("\ud800" * 1000)
    batch.wait(timeout=180)
    assert batch.result("sku-1").text


@pytest.mark.parametrize("wrong", [b"", b"\x01" * 16], ids=["lost", "wrong"])
def test_a_result_whose_index_is_not_right_is_found_all_the_same(stack: Stack, queue: BatchQueue, wrong: bytes) -> None:
    batch = queue.submit(blurbs(2), model=MODEL, share=False)
    batch.wait(timeout=180)
    index = keys.result_index(job_id(batch.id, 1))
    stack.redis.set(index, wrong) if wrong else stack.redis.delete(index)

    assert batch.result("sku-1").key == "sku-1"
