"""Lowtide from a user's side, in the order one meets it: from requests to results. Read from top to bottom."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack

from lowtide import (
    AsyncBatchQueue,
    BatchQueue,
    BatchState,
    InvalidBatch,
    InvalidRequest,
    Kind,
    ProviderName,
    Request,
    ResultStatus,
    Verdict,
)
from lowtide.spool import Spool

# Both providers and both kinds of spool, in as many stacks as there are providers.
pytestmark = pytest.mark.parametrize(
    ("provider", "storage"), [(ProviderName.GEMINI, "folder"), (ProviderName.VERTEX, "gs")], scope="module"
)


def test_every_request_of_a_batch_gets_its_own_result(queue: BatchQueue) -> None:
    batch = queue.submit(blurbs(20), model=MODEL, labels={"team": "catalog"})

    status = batch.wait(timeout=180)

    assert status.state is BatchState.COMPLETED
    assert (status.total, status.succeeded, status.failed) == (20, 20, 0)
    assert status.labels == {"team": "catalog"}
    results = {result.key: result for result in batch.results()}
    assert len(results) == 20
    for number in range(20):
        result = results[f"sku-{number}"]
        assert result.status is ResultStatus.SUCCEEDED
        assert result.text is not None
        assert f"article {number}" in result.text
        assert result.metadata == {"row": str(number)}
        assert result.usage is not None
        assert result.usage.total_token_count > 0
        assert result.attempts == 1
    assert status.usage.total_token_count == sum(r.usage.total_token_count for r in results.values() if r.usage)


def test_requests_may_come_in_the_rest_shape_too(queue: BatchQueue) -> None:
    batch = queue.submit(
        [{"key": "a", "request": {"contents": [{"parts": [{"text": "Say hello to Ada."}]}]}}], model=MODEL
    )

    batch.wait(timeout=180)

    [result] = batch.results()
    assert result.text is not None
    assert "Ada" in result.text


def test_requests_may_come_from_a_file(queue: BatchQueue, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    lines = [{"key": f"k{n}", "contents": f"Number {n}"} for n in range(5)]
    path.write_text("\n\n".join(json.dumps(line) for line in lines))

    batch = queue.submit(path, model=MODEL)

    assert batch.wait(timeout=180).succeeded == 5
    assert {result.key for result in batch.results()} == {f"k{n}" for n in range(5)}


def test_requests_may_come_from_the_spool(stack: Stack, queue: BatchQueue, storage: str) -> None:
    spool = Spool(stack.env["LOWTIDE_SPOOL_URL"])
    with spool.write("drop/mine.jsonl") as file:
        file.write(b'{"key": "one", "contents": "hello"}\n')

    if storage == "gs":
        # In Cloud Storage, such a URI names an object of the user's own.
        with pytest.raises(InvalidBatch, match="LOWTIDE_VERTEX_LOCATIONS"):
            queue.submit(spool.uri("drop/mine.jsonl"), model=MODEL)
        return
    batch = queue.submit(spool.uri("drop/mine.jsonl"), model=MODEL)

    assert batch.wait(timeout=180).succeeded == 1


def test_keys_may_be_any_string(queue: BatchQueue) -> None:
    keys = ["schön", "a b\nc", '"quoted"', "🦆" * 100, "r0.000000000000", " "]

    batch = queue.submit([Request(key=key, contents="hello") for key in keys], model=MODEL)

    batch.wait(timeout=180)
    assert sorted(result.key for result in batch.results()) == sorted(keys)


def test_a_small_batch_may_travel_inline(stack: Stack, queue: BatchQueue, provider: ProviderName) -> None:
    if provider is ProviderName.VERTEX:
        with pytest.raises(InvalidBatch, match="inline"):
            queue.submit(blurbs(7), model=MODEL, mode="inline")
        return
    batch = queue.submit(blurbs(7), model=MODEL, mode="inline")

    assert batch.wait(timeout=180).succeeded == 7
    assert {result.key for result in batch.results()} == {f"sku-{n}" for n in range(7)}
    [job] = [job for job in stack.emulator.jobs() if job.display_name == f"lowtide-{stack.installation}-{batch.id}-1"]
    assert job.source is None


def test_rows_that_fail_are_judged_one_by_one(queue: BatchQueue) -> None:
    batch = queue.submit(
        [
            Request(key="good", contents="hello"),
            Request(key="bad", contents="[[error:3]] hello"),
            Request(key="unsafe", contents="[[safety]] hello"),
            Request(key="long", contents="[[max_tokens]] hello"),
        ],
        model=MODEL,
    )

    status = batch.wait(timeout=180)

    assert status.state is BatchState.COMPLETED
    assert (status.succeeded, status.failed) == (1, 3)
    results = {result.key: result for result in batch.results()}
    assert results["good"].status is ResultStatus.SUCCEEDED
    reasons = {key: result.error.reason for key, result in results.items() if result.error}
    assert reasons == {"bad": "INVALID_ARGUMENT", "unsafe": "SAFETY", "long": "MAX_TOKENS"}
    assert results["bad"].attempts == 1


def test_a_row_that_may_succeed_later_runs_again(queue: BatchQueue) -> None:
    batch = queue.submit(
        [Request(key="good", contents="hello"), Request(key="busy", contents="[[error:8]] hello")],
        model=MODEL,
        max_attempts=2,
    )

    status = batch.wait(timeout=180)

    assert [job.requests for job in status.jobs] == [2, 1]
    results = {result.key: result for result in batch.results()}
    assert results["good"].attempts == 1
    assert results["busy"].status is ResultStatus.FAILED
    assert results["busy"].attempts == 2
    assert results["busy"].error is not None
    assert results["busy"].error.code == 8


@pytest.mark.parametrize("mode", ["file", "inline"])
def test_an_answer_that_comes_in_parts_is_one_result_and_costs_no_attempt(
    queue: BatchQueue, provider: ProviderName, mode: str
) -> None:
    if provider is ProviderName.VERTEX and mode == "inline":
        return
    # The answer has the prompt's own words.
    marks = {"one": "", "two": "[[continuation]]", "three": "[[continuation:3]]", "busy": "[[error:8:1]]"}
    prompts = {key: f"{mark} Tell of a lighthouse, {mode}.".strip() for key, mark in marks.items()}

    batch = queue.submit(
        [Request(key=key, contents=prompt) for key, prompt in prompts.items()], model=MODEL, mode=mode, max_attempts=2
    )

    status = batch.wait(timeout=180)
    results = {result.key: result for result in batch.results()}
    assert status.state is BatchState.COMPLETED
    assert {key: result.text for key, result in results.items()} == prompts
    assert {key: len(result.parts) for key, result in results.items()} == {"one": 1, "two": 2, "three": 3, "busy": 1}
    assert {key: result.attempts for key, result in results.items()} == {"one": 1, "two": 2, "three": 3, "busy": 2}
    for result in results.values():
        assert result.response is not None
        assert result.usage is not None
        assert result.response["candidates"][0]["finishReason"] == "STOP"
        assert "continuationToken" not in result.response["candidates"][0]
        assert result.response["usageMetadata"]["totalTokenCount"] == result.usage.total_token_count
    assert status.usage.total_token_count == sum(r.usage.total_token_count for r in results.values() if r.usage)
    assert status.discarded_usage.total_token_count == 0
    # A row that runs again and answers that go on are two needs, so they have two jobs.
    jobs = sorted((job.requests, job.attempt, job.continuations) for job in status.jobs)
    assert jobs == [(1, 1, 2), (1, 2, 0), (2, 1, 1), (4, 1, 0)]


def test_an_answer_need_not_be_continued(queue: BatchQueue) -> None:
    prompt = "[[continuation]] Tell of a lighthouse."

    taken, failed = (
        queue.submit([Request(key="k", contents=prompt)], model=MODEL, outcomes={"CONTINUATION": verdict})
        for verdict in (Verdict.SUCCEED, Verdict.FAIL)
    )

    assert (taken.wait(timeout=180).succeeded, failed.wait(timeout=180).reasons) == (1, {"CONTINUATION": 1})
    for batch in (taken, failed):
        [result] = batch.results()
        assert result.text
        assert result.text != prompt
        assert prompt.startswith(result.text)
        assert result.attempts == 1


def test_a_model_the_provider_does_not_know_fails_every_request_with_its_message(queue: BatchQueue) -> None:
    batch = queue.submit(blurbs(3), model="no-such-model")

    status = batch.wait(timeout=180)

    assert status.state is BatchState.FAILED
    assert status.error is not None
    assert "no-such-model" in status.error.message
    results = list(batch.results())
    assert {result.key for result in results} == {"sku-0", "sku-1", "sku-2"}
    for result in results:
        assert result.status is ResultStatus.FAILED
        assert result.error is not None
        assert "no-such-model" in result.error.message


def test_a_batch_is_split_into_jobs_and_put_together_again(bare_stack: Stack) -> None:
    bare_stack.worker(LOWTIDE_MAX_REQUESTS_PER_JOB="7")

    batch = bare_stack.queue().submit(blurbs(30), model=MODEL)

    status = batch.wait(timeout=180)
    assert [job.requests for job in status.jobs] == [7, 7, 7, 7, 2]
    assert status.succeeded == 30
    assert len({result.key for result in batch.results()}) == 30


def test_bad_input_fails_before_anything_is_stored_or_sent(bare_stack: Stack) -> None:
    queue = bare_stack.queue()

    def refused(*requests: object, **options: object) -> str:
        arguments: dict[str, object] = {"model": MODEL, **options}
        with pytest.raises((InvalidRequest, InvalidBatch)) as caught:
            queue.submit(list(requests), **arguments)  # type: ignore[arg-type]  # wrong types are the point
        return str(caught.value)

    good = Request(key="a", contents="x")
    assert "empty" in refused()
    assert "key" in refused(good, Request(key="a", contents="y"))
    assert 'request 2 (key "b"), config.temprature' in refused(
        good, Request(key="b", contents="y", config={"temprature": 1})
    )
    assert "contents" in refused({"key": "a"})
    assert "JSON" in refused(Request(key="a", contents="x", config={"temperature": float("nan")}))
    assert "metadata" in refused({"key": "a", "contents": "x", "metadata": {"row": 1}})
    assert "scheme" in refused(good, on_result="ftp://example.com")
    assert "model" in refused(good, model="")
    assert "mode" in refused(good, mode="carrier-pigeon")
    assert bare_stack.redis.keys() == [b"lowtide:installation"]
    assert not Spool(bare_stack.env["LOWTIDE_SPOOL_URL"]).names("batches")


def test_a_malformed_line_of_a_file_is_named(queue: BatchQueue, tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"key": "a", "contents": "x"}\n\n{"key": "b", "contents": }\n')

    with pytest.raises(InvalidRequest, match="request 3, line: not JSON"):
        queue.submit(path, model=MODEL)


def test_everything_works_with_await(stack: Stack) -> None:
    async def requests() -> AsyncIterator[Request]:
        for request in blurbs(12):
            yield request

    async def story() -> None:
        queue = AsyncBatchQueue(stack.settings())
        batch = await queue.submit(requests(), model=MODEL)
        status = await batch.wait(timeout=180)
        assert status.succeeded == 12
        assert {result.key async for result in batch.results()} == {f"sku-{n}" for n in range(12)}
        assert (await (await queue.get(batch.id)).status()).id == batch.id
        assert batch.id in {status.id for status in (await queue.list()).batches}
        await batch.delete()

    asyncio.run(story())


def test_a_batch_may_overrule_what_rows_of_a_reason_come_to(queue: BatchQueue) -> None:
    batch = queue.submit(
        [
            Request(key="long", contents="[[max_tokens]] hello"),
            Request(key="busy", contents="[[error:8]] hello"),
            Request(key="unsafe", contents="[[safety]] hello"),
        ],
        model=MODEL,
        outcomes={"MAX_TOKENS": "succeed", "8": "fail", "SAFETY": Verdict.RETRY},
        max_attempts=2,
    )

    batch.wait(timeout=180)

    results = {result.key: result for result in batch.results()}
    assert results["long"].status is ResultStatus.SUCCEEDED
    assert (results["busy"].status, results["busy"].attempts) == (ResultStatus.FAILED, 1)
    assert (results["unsafe"].status, results["unsafe"].attempts) == (ResultStatus.FAILED, 2)
    with pytest.raises(InvalidBatch, match="outcomes"):
        queue.submit(blurbs(1), model=MODEL, outcomes={"SAFETY": "maybe"})


def test_embeddings_come_back_as_vectors(queue: BatchQueue, caplog: pytest.LogCaptureFixture) -> None:
    requests = [
        Request(
            key=f"text-{n}",
            contents=f"Text number {n}",
            config={"output_dimensionality": 16, "task_type": "RETRIEVAL_DOCUMENT"},
            metadata={"row": str(n)},
        )
        for n in range(6)
    ]

    batch = queue.submit(requests, model="gemini-embedding-2", kind="embedding")

    status = batch.wait(timeout=180)
    assert status.succeeded == 6
    results = {result.key: result for result in batch.results()}
    vectors = {key: result.vector for key, result in results.items()}
    assert all(vector is not None and len(vector) == 16 for vector in vectors.values())
    assert len({tuple(vector or ()) for vector in vectors.values()}) == 6
    assert results["text-3"].metadata == {"row": "3"}
    assert results["text-3"].usage is not None
    assert results["text-3"].usage.prompt_token_count > 0
    unfit = Request(key="a", contents="x", config={"temperature": 1})
    with pytest.raises(InvalidRequest, match=r"config\.temperature"):
        queue.submit([unfit], model="gemini-embedding-2", kind=Kind.EMBEDDING)
    with pytest.raises(InvalidBatch, match="inline"):
        queue.submit(requests, model="gemini-embedding-2", kind="embedding", mode="inline")
    assert not caplog.records
    with pytest.raises(InvalidRequest, match="config"):
        queue.submit(requests, model="gemini-embedding-2")
    assert "submit with kind='embedding'" in caplog.text
