"""Requests that run again: which of them may share a job with those of other jobs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.records import a_batch, a_job, held_job
from tests.unit.bodies import calling

from lowtide.protocol import BatchFiles, Stage
from lowtide.shaping import shaper_of
from lowtide.spool import RequestReader, RequestWriter, Spool
from lowtide.states import JobState, Kind, ProviderName
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.pools import pooled
from lowtide_worker.state import Ordinals, Retry

BATCH = "b0pools"
AGAIN = Ordinals(first=9, last=12, bitmap=b"\xa0")
"""The ordinals 9 and 11."""


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """With a batch for Vertex AI, whose first nine requests are of another group than the others."""
    spool = Spool(str(tmp_path))
    shaper = shaper_of(ProviderName.VERTEX, model="m", kind=Kind.GENERATION)
    with RequestWriter(spool, BATCH, shaper, max_request_bytes=10_000) as writer:
        for n in range(12):
            writer.add({"key": f"k{n}", "request": calling(days=1 if n < 9 else "1")})
        writer.finish()
    return spool


def retried(spool: Spool, *, most: int = 2, batch: dict[str, Any] | None = None, **job: Any) -> Retry:
    """Two requests of a job that run again; `most` may share one, and these are fields of its batch and of the job."""
    of_batch = a_batch(BATCH, **{"jobs": 2, "total": 12, "provider": ProviderName.VERTEX, "groups": 2} | (batch or {}))
    of_job = a_job(f"{BATCH}-1", **{"last": 12, "requests": 12, "state": JobState.SUCCEEDED} | job)
    held = held_job(of_job, of_batch, Stage.SETTLE)
    runtime = SimpleNamespace(spool=spool, settings=SimpleNamespace(linger_requests=most))
    return pooled(cast("Runtime", runtime), held, Retry.of(of_job, AGAIN).again())


def test_a_pool_has_one_attempt_one_number_of_losses_and_one_group(spool: Spool) -> None:
    found = [
        retried(spool),
        retried(spool, attempt=2),
        retried(spool, losses=1),
        retried(spool, batch={"groups": 1}),
        retried(spool, batch={"groups": 1, "provider": ProviderName.GEMINI, "bundled": 3}),
        retried(spool, by_file=True),
    ]

    assert [retry.pool for retry in found] == ["2|0|0|1", "3|0|0|1", "2|1|0|1", "2|0|0|0", "2|0|0|0", "2|0|0|1|file"]
    sizes = [size for size, _ in RequestReader(spool, BATCH).sizes()]
    for retry in found:
        assert list(retry.requests) == list(AGAIN)
        assert retry.requests.first == 8
        assert retry.bytes == sizes[9] + sizes[11]


@pytest.mark.parametrize(
    "facts",
    [
        {"most": 1},
        {"batch": {"jobs": 1}},
        {"batch": {"bundled": 3}},
        {"state": JobState.FAILED},
        {"partial": "an index", "continuations": 1},
    ],
    ids=["many", "one job", "a bundle on Vertex AI", "a job that failed", "a row of an answer that goes on"],
)
def test_these_requests_share_no_job_with_those_of_others(spool: Spool, facts: dict[str, Any]) -> None:
    assert retried(spool, **facts).pool == ""


def test_requests_whose_files_are_away_share_no_job(spool: Spool) -> None:
    spool.delete(BatchFiles(BATCH).index)

    assert retried(spool, batch={"groups": 1}).pool == ""
    assert retried(spool).pool == ""
