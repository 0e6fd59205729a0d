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
        status = batch.wait(timeout=30)

        assert status.succeeded == 25
        assert status.estimated_tokens == 250
        assert [job.requests for job in status.jobs] == [10, 10, 5]
        assert stack.emulator.stats().billed == {MODEL: 25}
        assert status.usage.prompt_token_count == 250
