"""Batches that are larger than the provider's quota of enqueued tokens."""

from __future__ import annotations

from pathlib import Path

from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Awaited, Batch, Request, Waiting
from lowtide.protocol import keys
from lowtide_emulator import Settings as EmulatorSettings

MODEL = "gemini-3.5-flash"
LIMIT = 100
TEN = "x" * 40
"""A text of ten tokens, here and by the emulator's own rule."""


def test_a_batch_beyond_the_quota_is_cut_into_jobs_within_it(tmp_path: Path) -> None:
    with Stack(tmp_path, EmulatorSettings(max_enqueued_tokens=str(LIMIT))) as stack:
        stack.worker("-P", "threads", "-c", "2", LOWTIDE_MAX_ENQUEUED_TOKENS=f'{{"{MODEL}": {LIMIT}}}')

        batch = stack.queue().submit([Request(key=f"{n}", contents=TEN) for n in range(25)], model=MODEL)
        status = batch.wait(timeout=180)

        assert status.succeeded == 25
        assert status.estimated_tokens == 250
        assert [job.requests for job in status.jobs] == [10, 10, 5]
        assert stack.emulator.stats().billed == {MODEL: 25}
        assert status.usage.prompt_token_count == 250


def test_a_batch_beyond_a_quota_that_is_not_known_is_divided_until_it_fits(tmp_path: Path) -> None:
    with Stack(tmp_path, EmulatorSettings(max_enqueued_tokens=str(LIMIT))) as stack:
        stack.worker("-P", "threads", "-c", "2")

        batch = stack.queue().submit([Request(key=f"{n}", contents=TEN) for n in range(60)], model=MODEL)
        status = batch.wait(timeout=180)

        assert status.succeeded == 60
        assert all(job.requests <= 10 for job in status.jobs)
        assert sum(job.requests for job in status.jobs) == 60
        assert stack.emulator.stats().billed == {MODEL: 60}


def test_a_request_beyond_the_quota_expires_and_the_others_do_not(tmp_path: Path) -> None:
    with Stack(tmp_path, EmulatorSettings(max_enqueued_tokens=str(LIMIT))) as stack:
        stack.worker("-P", "threads", "-c", "2")
        texts = [TEN, TEN * 11, TEN, TEN]

        batch = stack.queue().submit([Request(key=f"{n}", contents=text) for n, text in enumerate(texts)], model=MODEL)
        wait_until(lambda: batch.summary().succeeded == 3, timeout=180, what="the others have their results")
        waiting = wait_until(lambda: refused(batch), timeout=180, what="it is refused alone")
        alone = f"this one is a single request of {waiting.tokens} tokens, which may be more than the quota"
        assert waiting.reason.endswith(alone)
        assert (waiting.requests, waiting.live_tokens) == (1, 0)
        stack.redis.hset(keys.batch(batch.id), "deadline", "1")
        status = batch.wait(timeout=180)

        assert (status.succeeded, status.expired) == (3, 1)
        assert status.reasons == {"RESOURCE_EXHAUSTED": 1}


def refused(batch: Batch) -> Waiting | None:
    """The waiting of a batch whose job was refused while no other was live; None where it does not wait."""
    waiting = batch.status().waiting
    return waiting if waiting and waiting.why is Awaited.QUOTA and waiting.live_tokens == 0 else None


def test_an_urgent_batch_gets_into_the_next_job_while_a_large_one_waits(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        limits = {"LOWTIDE_MAX_ENQUEUED_TOKENS": f'{{"{MODEL}": {LIMIT}}}', "LOWTIDE_MAX_ACTIVE_JOBS": "1"}
        stack.worker("-P", "threads", "-c", "2", **limits)
        line = keys.waiting("gemini", MODEL)
        with stack.held_jobs():
            large = stack.queue().submit([Request(key=f"{n}", contents=TEN) for n in range(20)], model=MODEL)
            wait_until(lambda: stack.redis.zcard(line) == 1, what="its second job waits")
            # A bundle is closed though jobs wait, if none of them has its turn before.
            urgent = [
                stack.queue(linger_seconds=0.2).submit(
                    [Request(key="k", contents=TEN)], model=MODEL, priority=priority, share=share
                )
                for priority, share in ((10, False), (20, True))
            ]
            wait_until(lambda: stack.redis.zcard(line) == 3, what="the urgent ones wait too")

        assert [batch.wait(timeout=180).succeeded for batch in (*urgent, large)] == [1, 1, 20]
        names = [job.display_name for job in sorted(stack.emulator.jobs(), key=lambda job: job.created)]
        for name, batch_id in zip(names[1:3], (urgent[1].status().bundle, urgent[0].id), strict=True):
            assert str(batch_id) in name
