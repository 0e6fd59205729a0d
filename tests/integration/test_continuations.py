"""Answers that stay incomplete: the result has the reason, and all that came."""

from __future__ import annotations

from tests.integration.blurbs import MODEL
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import JobState, Request, ResultStatus

LONG = "[[continuation:3]] Tell of a lighthouse at the end of the world."


def test_an_answer_that_stays_incomplete_has_the_reason_and_what_came(bare_stack: Stack) -> None:
    bare_stack.worker("-P", "threads", "-c", "2", LOWTIDE_MAX_CONTINUATIONS="1")
    queue = bare_stack.queue()
    too_long = queue.submit([Request(key="k", contents=LONG), Request(key="short", contents="hello")], model=MODEL)
    assert too_long.wait(timeout=180).reasons == {"CONTINUATION": 1}
    with bare_stack.held_jobs():
        cancelled = queue.submit([Request(key="k", contents=LONG)], model=MODEL)
        bare_stack.emulator.set_faults([{"on": "job", "kind": "stuck_running", "match": f"{cancelled.id}-2"}])
    wait_until(lambda: [job.state for job in cancelled.status().jobs][1:] == [JobState.RUNNING], what="the second job")
    cancelled.cancel()
    assert cancelled.wait(timeout=180).reasons == {"CANCELLED": 1}

    third = -(-len(LONG) // 3)
    for batch, length in ((too_long, 2 * third), (cancelled, third)):
        result = next(result for result in batch.results() if result.key == "k")
        assert (result.text, result.attempts) == (LONG[:length], 2)
        assert result.status is (ResultStatus.FAILED if batch is too_long else ResultStatus.CANCELLED)
        assert result.response is not None
        # With it, the answer can be continued by hand.
        assert result.response["candidates"][0]["continuationToken"]
        status = batch.status()
        assert status.usage.total_token_count == sum(r.usage.total_token_count for r in batch.results() if r.usage)
        assert status.discarded_usage.total_token_count == 0
        assert result.response["usageMetadata"]["totalTokenCount"] <= status.usage.total_token_count
