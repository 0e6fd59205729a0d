"""Batches that are larger than the provider's quota of enqueued tokens."""

from __future__ import annotations

from pathlib import Path

from tests.stack import Stack

from lowtide import Request
from lowtide_emulator import Settings as EmulatorSettings

MODEL = "gemini-3.5-flash"
LIMIT = 100
TEN = "x" * 40
"""A text of ten tokens, here and by the emulator's own rule."""


def test_a_batch_beyond_the_quota_is_cut_into_jobs_within_it(tmp_path: Path) -> None:
    with Stack(tmp_path, EmulatorSettings(max_enqueued_tokens=str(LIMIT))) as stack:
        stack.worker("-P", "threads", "-c", "2", LOWTIDE_MAX_ENQUEUED_TOKENS=f'{{"{MODEL}": {LIMIT}}}')

        batch = stack.queue().submit([Request(key=f"{n}", contents=TEN) for n in range(25)], model=MODEL)
        status = batch.wait(timeout=60)

        assert status.succeeded == 25
        assert status.estimated_tokens == 250
        assert [job.requests for job in status.jobs] == [10, 10, 5]
        assert stack.emulator.stats().billed == {MODEL: 25}
        assert status.usage.prompt_token_count == 250


def test_a_batch_beyond_a_quota_that_is_not_known_is_divided_until_it_fits(tmp_path: Path) -> None:
    with Stack(tmp_path, EmulatorSettings(max_enqueued_tokens=str(LIMIT))) as stack:
        stack.worker("-P", "threads", "-c", "2")

        batch = stack.queue().submit([Request(key=f"{n}", contents=TEN) for n in range(60)], model=MODEL)
        status = batch.wait(timeout=120)

        assert status.succeeded == 60
        assert all(job.requests <= 10 for job in status.jobs)
        assert sum(job.requests for job in status.jobs) == 60
        assert stack.emulator.stats().billed == {MODEL: 60}


def test_a_request_beyond_the_quota_expires_and_the_others_do_not(tmp_path: Path) -> None:
    with Stack(tmp_path, EmulatorSettings(max_enqueued_tokens=str(LIMIT))) as stack:
        stack.worker("-P", "threads", "-c", "2", LOWTIDE_BATCH_DEADLINE_SECONDS="15")
        texts = [TEN, TEN * 11, TEN, TEN]

        batch = stack.queue().submit([Request(key=f"{n}", contents=text) for n, text in enumerate(texts)], model=MODEL)
        status = batch.wait(timeout=120)

        assert (status.succeeded, status.expired) == (3, 1)
        assert status.reasons == {"RESOURCE_EXHAUSTED": 1}
