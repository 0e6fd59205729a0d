"""Small batches share provider jobs, and each behaves as if it had one of its own."""

from __future__ import annotations

import os
from functools import partial

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Awaited, Batch, BatchNotFound, BatchQueue, BatchState, ResultStatus


@pytest.fixture(autouse=True)
def no_faults(stack: Stack) -> None:
    stack.emulator.reset()


@pytest.fixture
def sharing(stack: Stack) -> BatchQueue:
    return stack.queue(share_jobs=True, linger_seconds=1)


def full(stack: Stack, requests: int) -> BatchQueue:
    """A queue whose bundle is closed when it has so many requests, however long their submits take."""
    return stack.queue(share_jobs=True, linger_seconds=600, linger_requests=requests)


def created(*batches: Batch) -> int:
    """How many jobs the provider has had of these batches."""
    return len({job.id for batch in batches for job in batch.status().jobs if job.name})


def test_small_batches_share_a_job_and_each_has_its_own_results(stack: Stack) -> None:
    queue = full(stack, 16)
    batches = [queue.submit(blurbs(count), model=MODEL, labels={"n": str(count)}) for count in (1, 3, 10, 2)]

    for batch, count in zip(batches, (1, 3, 10, 2), strict=True):
        status = batch.wait(timeout=180)
        assert (status.state, status.succeeded, status.labels) == (BatchState.COMPLETED, count, {"n": str(count)})
        results = {result.key: result for result in batch.results()}
        assert set(results) == {f"sku-{number}" for number in range(count)}
        assert all(result.text and result.batch_id == batch.id for result in results.values())
        assert all(result.labels == {"n": str(count)} for result in results.values())
        assert all(result.metadata == {"row": key.removeprefix("sku-")} for key, result in results.items())
        assert status.usage.total_token_count == sum(r.usage.total_token_count for r in results.values() if r.usage)
        assert [(job.requests, job.others) for job in status.jobs] == [(count, 16 - count)]
    assert created(*batches) == 1


def test_a_batch_says_that_it_waits_for_others(stack: Stack) -> None:
    queue = full(stack, 100)
    batch = queue.submit(blurbs(2), model=MODEL)

    waiting = batch.status().waiting
    [listed] = [one.waiting for one in queue.list().batches if one.id == batch.id]
    batch.cancel()

    assert waiting is not None
    assert waiting == listed
    assert (waiting.why, waiting.requests) == (Awaited.OTHERS, 2)
    assert waiting.next_try_at == pytest.approx(batch.status().created_at + 600, abs=60)
    assert batch.wait(timeout=180).waiting is None


def test_a_batch_of_other_options_or_many_requests_shares_no_job(stack: Stack, sharing: BatchQueue) -> None:
    alone = [
        sharing.submit(blurbs(2), model=MODEL, max_attempts=2),
        sharing.submit(blurbs(2), model=MODEL, share=False),
        sharing.submit(blurbs(2), model=MODEL, mode="inline"),
        stack.queue(share_jobs=True, linger_requests=2).submit(blurbs(2), model=MODEL),
    ]
    shared = [full(stack, 4).submit(blurbs(2), model=MODEL, priority=1) for _ in range(2)]

    for batch in (*alone, *shared):
        assert batch.wait(timeout=180).succeeded == 2
        assert len(list(batch.results())) == 2
    assert [created(batch) for batch in alone] == [1, 1, 1, 1]
    assert (created(*alone), created(*shared)) == (4, 1)
    assert [batch.status().bundle is None for batch in alone] == [False, True, False, True]


def test_enough_requests_need_not_wait(stack: Stack) -> None:
    queue = full(stack, 10)
    batches = [queue.submit(blurbs(4), model=MODEL) for _ in range(3)]

    assert [batch.wait(timeout=180).succeeded for batch in batches] == [4, 4, 4]
    assert created(*batches) == 1


def test_rows_that_run_again_do_so_for_their_own_batches(stack: Stack) -> None:
    queue = full(stack, 10)
    marked = [{"key": f"k{n}", "contents": f"[[error:8:1]] Article {n}."} for n in range(3)]
    again = queue.submit(marked, model=MODEL)
    at_once = queue.submit(blurbs(3), model=MODEL)
    refused = queue.submit([{"key": "no", "contents": "[[error:3]] Article."}, *marked], model=MODEL)

    assert again.wait(timeout=180).succeeded == 3
    assert at_once.wait(timeout=180).succeeded == 3
    status = refused.wait(timeout=180)
    assert (status.state, status.succeeded, status.failed) == (BatchState.COMPLETED, 3, 1)
    assert status.reasons == {"INVALID_ARGUMENT": 1}
    assert {result.key: result.attempts for result in again.results()} == {"k0": 2, "k1": 2, "k2": 2}
    assert {result.attempts for result in at_once.results()} == {1}
    assert sorted(result.key for result in refused.results()) == ["k0", "k1", "k2", "no"]
    assert created(again, at_once, refused) == 2


def test_answers_that_go_on_do_so_for_their_own_batches(stack: Stack) -> None:
    queue = full(stack, 6)
    prompts = [f"[[continuation:{parts}]] Describe a lighthouse." for parts in (2, 1, 3)]
    batches = [
        queue.submit([{"key": "k", "contents": prompt}, {"key": "once", "contents": "Hello."}], model=MODEL)
        for prompt in prompts
    ]

    for batch, prompt, parts in zip(batches, prompts, (2, 1, 3), strict=True):
        status = batch.wait(timeout=180)
        results = {result.key: result for result in batch.results()}
        assert (status.succeeded, results["k"].text, results["k"].attempts) == (2, prompt, parts)
        assert status.usage.total_token_count == sum(r.usage.total_token_count for r in results.values() if r.usage)
        assert status.discarded_usage.total_token_count == 0
    assert created(*batches) == 3


def test_a_batch_that_is_cancelled_while_it_waits_is_not_sent(stack: Stack) -> None:
    queue = full(stack, 6)
    stops, runs = queue.submit(blurbs(3), model=MODEL), queue.submit(blurbs(2), model=MODEL)
    stops.cancel()
    last = queue.submit(blurbs(1), model=MODEL)

    ended = stops.wait(timeout=180)
    assert (ended.state, ended.cancelled) == (BatchState.CANCELLED, 3)
    assert {result.status for result in stops.results()} == {ResultStatus.CANCELLED}
    assert (runs.wait(timeout=180).succeeded, last.wait(timeout=180).succeeded) == (2, 1)
    assert [(job.requests, job.others) for job in runs.status().jobs if job.name] == [(2, 1)]


def test_nothing_is_sent_where_every_batch_is_cancelled(stack: Stack) -> None:
    queue = full(stack, 100)
    batches = [queue.submit(blurbs(2), model=MODEL) for _ in range(3)]
    for batch in batches:
        batch.cancel()

    assert [batch.wait(timeout=180).cancelled for batch in batches] == [2, 2, 2]
    bundle = batches[0].status().bundle
    assert bundle
    assert created(*batches) == 0
    for batch in batches:
        batch.delete()
    wait_until(lambda: not left_of(stack, bundle), what="the bundle is deleted")


def test_a_cancel_ends_one_batch_at_once_and_the_job_with_the_last(stack: Stack) -> None:
    queue = full(stack, 4)
    stack.emulator.set_faults([{"on": "job", "kind": "stuck_running"}])
    first, last = (queue.submit(blurbs(2), model=MODEL) for _ in range(2))
    wait_until(lambda: created(first), what="the job is created")

    first.cancel()
    assert first.wait(timeout=180).cancelled == 2
    assert {result.key: result.metadata for result in first.results()} == {f"sku-{n}": {"row": f"{n}"} for n in (0, 1)}
    assert first.result("sku-1").status is ResultStatus.CANCELLED
    assert not last.status().finished
    last.cancel()
    assert last.wait(timeout=180).cancelled == 2
    wait_until(lambda: not any(job.live for job in stack.emulator.jobs()), what="the job is cancelled")


def left_of(stack: Stack, bundle: str) -> list[str]:
    """The keys and the files of a bundle that exist."""
    keys = [key.decode() for key in stack.redis.scan_iter("lowtide:*") if bundle.encode() in key]
    # Unlike rglob, it takes no offence at a folder that goes meanwhile.
    return keys + [name for _, _, names in os.walk(stack.directory / "spool" / "batches" / bundle) for name in names]


def test_a_bundle_goes_with_its_last_batch(stack: Stack) -> None:
    queue = full(stack, 4)
    first, last = (queue.submit(blurbs(2), model=MODEL) for _ in range(2))
    for batch in (first, last):
        batch.wait(timeout=180)
    bundle = first.status().bundle
    assert bundle is not None
    assert last.status().bundle == bundle

    first.delete()
    wait_until(lambda: not stack.redis.exists(f"lowtide:batch:{first.id}"), what="the first is deleted")
    assert len(list(last.results())) == 2
    last.delete()
    wait_until(lambda: not left_of(stack, bundle), what="the bundle is deleted")


def test_the_same_idempotency_key_gives_the_same_batch(sharing: BatchQueue) -> None:
    first, again = (sharing.submit(blurbs(2), model=MODEL, idempotency_key="nightly") for _ in range(2))

    assert first.id == again.id
    assert first.wait(timeout=180).total == 2


def test_a_batch_whose_requests_are_gone_takes_no_other_with_it(stack: Stack) -> None:
    queue = full(stack, 4)
    gone = queue.submit(blurbs(2), model=MODEL)
    assert stack.redis.hdel(f"lowtide:requests:{gone.status().bundle}", gone.id)
    runs = queue.submit(blurbs(2), model=MODEL)

    assert runs.wait(timeout=180).succeeded == 2
    status = gone.wait(timeout=180)
    assert status.error is not None
    assert (status.state, status.error.reason) == (BatchState.FAILED, "REQUESTS_LOST")


def test_a_batch_whose_requests_are_gone_can_be_cancelled_and_its_bundle_goes_with_it(stack: Stack) -> None:
    queue = stack.queue(share_jobs=True, linger_seconds=600, linger_requests=4, small_batch_bytes=0)
    gone, runs = queue.submit(blurbs(2), model=MODEL), queue.submit(blurbs(1), model=MODEL)
    for file in (stack.directory / "spool" / "batches" / gone.id).iterdir():
        file.unlink()
    gone.cancel()
    last = queue.submit(blurbs(1), model=MODEL)

    ended = gone.wait(timeout=180)
    assert ended.error is not None
    assert (ended.state, ended.cancelled, ended.error.reason) == (BatchState.CANCELLED, 2, "REQUESTS_LOST")
    assert list(gone.results()) == []
    assert [batch.wait(timeout=180).succeeded for batch in (runs, last)] == [1, 1]
    bundle = str(gone.status().bundle)
    for batch in (gone, runs, last):
        batch.delete()
    wait_until(lambda: not left_of(stack, bundle), what="the bundle is deleted")


def test_a_bundle_needs_only_the_files_that_every_batch_has(stack: Stack) -> None:
    queue = full(stack, 4)
    with stack.held_jobs():
        batches = [queue.submit(blurbs(2), model=MODEL, labels={"n": str(n)}) for n in range(2)]
        wait_until(lambda: created(*batches), what="the job is created")
        bundle = stack.directory / "spool" / "batches" / str(batches[0].status().bundle)
        for file in bundle.iterdir():
            if file.is_file() and file.name not in ("index.bin", "keys.jsonl", "requests.jsonl"):
                file.unlink()

    assert [batch.wait(timeout=180).succeeded for batch in batches] == [2, 2]
    assert [{result.labels["n"] for result in batch.results()} for batch in batches] == [{"0"}, {"1"}]


def test_a_bundle_names_the_command_that_lists_its_batches(stack: Stack) -> None:
    queue = full(stack, 2)
    batches = [queue.submit(blurbs(1), model=MODEL) for _ in range(2)]
    status = batches[0].summary()
    assert status.bundle is not None

    with pytest.raises(BatchNotFound, match=f"a bundle of 2 small batches: `lowtide list --bundle {status.bundle}`"):
        queue.get(status.bundle).status()
    assert status.bundled == 2


def test_batches_gather_while_no_slot_is_free(bare_stack: Stack) -> None:
    bare_stack.worker("-P", "threads", "-c", "2", LOWTIDE_MAX_ACTIVE_JOBS="1", LOWTIDE_LINGER_SECONDS="0.5")
    bare_stack.emulator.set_faults([{"on": "job", "kind": "stuck_running"}])
    queue = bare_stack.queue(share_jobs=True, linger_seconds=0.2)
    has_it = queue.submit(blurbs(1), model=MODEL, share=False)
    wait_until(lambda: created(has_it), what="the slot is taken")
    waits = queue.submit(blurbs(1), model=MODEL, share=False)
    wait_until(lambda: bare_stack.redis.zcard(f"lowtide:waiting:gemini:{MODEL}"), what="a job waits for the slot")
    batches = [queue.submit(blurbs(2), model=MODEL)]
    bundle = f"lowtide:batch:{batches[0].status().bundle}"
    for _ in range(2):
        looks = looked_at(bare_stack, bundle)
        wait_until(partial(looked_at, bare_stack, bundle, looks), what="it was due and stays open")
        batches.append(queue.submit(blurbs(2), model=MODEL))
    waiting = batches[0].status().waiting
    assert waiting is not None
    assert (waiting.why, waiting.requests) == (Awaited.OTHERS, 2)
    assert waiting.reason.startswith("jobs whose turn comes first wait")
    bare_stack.emulator.set_faults([])
    for batch in (has_it, waits):
        batch.cancel()

    assert [batch.wait(timeout=180).succeeded for batch in batches] == [2, 2, 2]
    assert len({batch.status().bundle for batch in batches}) == 1


def looked_at(stack: Stack, entity: str, already: int = 0) -> int:
    """The token of an entity, if it is higher than one that was seen already; else 0."""
    token = int(stack.redis.hget(entity, "token") or 0)
    return token if token > already else 0


def test_a_batch_that_is_submitted_after_a_cancel_is_not_cancelled_with_it(bare_stack: Stack) -> None:
    queue = bare_stack.queue(share_jobs=True, linger_seconds=1)
    stops = queue.submit(blurbs(2), model=MODEL)
    stops.cancel()
    runs = queue.submit(blurbs(2), model=MODEL)
    bare_stack.worker("-P", "threads", "-c", "2")

    assert runs.wait(timeout=180).succeeded == 2
    assert stops.wait(timeout=180).cancelled == 2
    assert stops.status().bundle != runs.status().bundle
    assert not bare_stack.redis.keys("lowtide:lane:*")


def test_a_bundle_waits_only_for_jobs_whose_turn_comes_first(bare_stack: Stack) -> None:
    bare_stack.worker("-P", "threads", "-c", "2", LOWTIDE_MAX_ACTIVE_JOBS="1")
    bare_stack.emulator.set_faults([{"on": "job", "kind": "stuck_running"}])
    queue = bare_stack.queue(share_jobs=True, linger_seconds=0.2)
    has_it = queue.submit(blurbs(1), model=MODEL, share=False)
    wait_until(lambda: created(has_it), what="the slot is taken")
    queue.submit(blurbs(1), model=MODEL, share=False, priority=-5)
    wait_until(lambda: bare_stack.redis.zcard(f"lowtide:waiting:gemini:{MODEL}"), what="a job waits for the slot")

    first = queue.submit(blurbs(1), model=MODEL)

    wait_until(lambda: first.status().jobs, what="the bundle is cut into jobs")


def test_lists_show_why_results_of_a_bundle_are_not_delivered(bare_stack: Stack) -> None:
    bare_stack.worker("-P", "threads", "-c", "2")
    queue = bare_stack.queue(share_jobs=True, linger_seconds=0.2)
    batches = [queue.submit(blurbs(1), model=MODEL, on_result="shop.save@nowhere") for _ in range(2)]

    for batch in batches:
        batch.wait(timeout=180)
        wait_until(partial(undelivered, batch), what="the segment waits for its handler")
    assert [listed.undelivered for listed in queue.list().batches] == [1, 1]


def undelivered(batch: Batch) -> int:
    """The number of segments that no handler has taken."""
    return batch.summary().undelivered


def test_requests_of_a_cancelled_batch_are_not_sent_with_a_job_that_waits(bare_stack: Stack) -> None:
    bare_stack.worker("-P", "threads", "-c", "2", LOWTIDE_MAX_ACTIVE_JOBS="1")
    bare_stack.emulator.set_faults([{"on": "job", "kind": "stuck_running"}])
    has_it = bare_stack.queue().submit(blurbs(1), model=MODEL, share=False)
    wait_until(lambda: created(has_it), what="the slot is taken")
    queue = full(bare_stack, 9)
    before, stops, runs = (queue.submit(blurbs(3), model=MODEL) for _ in range(3))
    wait_until(lambda: bare_stack.redis.zcard(f"lowtide:waiting:gemini:{MODEL}"), what="the shared job waits")
    stops.cancel()
    ended = stops.wait(timeout=180)
    bare_stack.emulator.set_faults([])
    has_it.cancel()

    assert (ended.state, ended.cancelled) == (BatchState.CANCELLED, 3)
    for batch in (before, runs):
        assert batch.wait(timeout=180).succeeded == 3
        assert sorted(result.key for result in batch.results()) == ["sku-0", "sku-1", "sku-2"]
    assert [(job.requests, job.others) for job in runs.status().jobs if job.name] == [(3, 3)]
    assert not [job for job in stops.status().jobs if job.name]
    assert stops.status().discarded_usage.total_token_count == 0
