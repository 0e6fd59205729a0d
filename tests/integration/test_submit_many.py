"""Many batches in one call: each is a batch of its own, and an error leaves all, or all but its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack

from lowtide import AsyncBatchQueue, BatchQueue, BatchSubmission, IdempotencyConflict, InvalidBatch, InvalidRequest
from lowtide.protocol import keys
from lowtide.spool import Spool


def waiting_in_spool(stack: Stack) -> set[str]:
    return set(Spool(stack.env["LOWTIDE_SPOOL_URL"]).folders("batches"))


def recorded(stack: Stack) -> int:
    return stack.redis.zcard(keys.BATCHES)


def test_each_of_many_batches_has_its_own_options_and_results(stack: Stack, queue: BatchQueue) -> None:
    counts = [1, 3, 10, 2]

    def submissions() -> Iterator[BatchSubmission]:
        for count in counts:
            yield {"requests": blurbs(count), "model": MODEL, "labels": {"n": str(count)}, "share": count != 10}

    batches = queue.submit_many(submissions())

    assert len({batch.id for batch in batches}) == 4
    for batch, count in zip(batches, counts, strict=True):
        status = batch.wait(timeout=180)
        assert (status.succeeded, status.labels) == (count, {"n": str(count)})
        assert {result.key for result in batch.results()} == {f"sku-{n}" for n in range(count)}


def test_a_bad_request_in_one_of_many_batches_leaves_nothing_of_all(stack: Stack, queue: BatchQueue) -> None:
    before = recorded(stack), waiting_in_spool(stack)
    good: BatchSubmission = {"requests": [*blurbs(2)], "model": MODEL}
    requests: list[dict[str, object]] = [{"key": "even", "contents": "x"}, {"key": "odd", "contents": 5}]
    bad: BatchSubmission = {"requests": requests, "model": MODEL}

    with pytest.raises(InvalidRequest, match=r'^batch 71 of the call: request 2 \(key "odd"\)') as caught:
        queue.submit_many([*([good] * 70), bad, good])
    assert (caught.value.batch, caught.value.position) == (70, 1)
    with pytest.raises(InvalidBatch, match="batch 2 of the call: priority"):
        queue.submit_many([good, {**good, "priority": 1000}])
    with pytest.raises(InvalidBatch, match="batch 1 of the call: expected the arguments of submit"):
        queue.submit_many([{"model": MODEL}])  # type: ignore[typeddict-item]
    with pytest.raises(TypeError, match="no option 'lables'") as misspelt:
        queue.submit_many([good, {**good, "lables": {}}])  # type: ignore[typeddict-unknown-key]
    assert vars(misspelt.value)["batch"] == 1
    assert misspelt.value.__notes__ == ["It is of batch 2 of the call."]

    assert (recorded(stack), waiting_in_spool(stack)) == before
    assert queue.submit_many([]) == []


def test_a_key_of_other_content_stops_no_other_batch(stack: Stack, queue: BatchQueue) -> None:
    before = waiting_in_spool(stack)
    taken = queue.submit(blurbs(3), model=MODEL, idempotency_key="taken")
    submissions: list[BatchSubmission] = [
        {"requests": [*blurbs(count)], "model": MODEL, "idempotency_key": key}
        for key, count in (("a", 1), ("taken", 2), ("b", 2), ("b", 2), ("taken", 3))
    ]

    with pytest.raises(IdempotencyConflict, match="batch 2 of the call: idempotency key 'taken'") as caught:
        queue.submit_many(submissions)
    assert caught.value.batch == 1

    a, b, again, same = queue.submit_many([submissions[0], *submissions[2:]])
    assert (b.id, same.id) == (again.id, taken.id)
    assert [batch.wait(timeout=180).succeeded for batch in (a, b)] == [1, 2]
    # The files of what did not become a batch are gone.
    assert waiting_in_spool(stack) - before == {taken.id, a.id, b.id}


def test_many_batches_can_be_submitted_without_blocking_an_event_loop(stack: Stack) -> None:
    async def story() -> list[int]:
        queue = AsyncBatchQueue(stack.settings())
        batches = await queue.submit_many([{"requests": blurbs(n), "model": MODEL} for n in (1, 2)])
        return [(await batch.wait(timeout=180)).succeeded for batch in batches]

    assert asyncio.run(story()) == [1, 2]
