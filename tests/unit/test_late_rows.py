"""Rows that have not come yet, while the provider cannot be asked for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.records import a_batch, a_job, held_job

from lowtide.models import ResultError
from lowtide.protocol import Stage
from lowtide.protocol.file_parts import Part
from lowtide.states import JobState
from lowtide_worker.providers import Denied, Missing, ProviderError, Refused, Throttled, Unavailable
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.late_rows import late_rows
from lowtide_worker.state import Move


@pytest.mark.parametrize("kind", [Denied, Missing, Refused, Throttled, Unavailable])
def test_the_grace_for_late_rows_begins_whatever_the_provider_answers(kind: type[ProviderError]) -> None:
    class Provider:
        def parts(self, _: Any) -> list[Part]:
            raise kind(ResultError(reason="ANY", message="no answer"))

    job = a_job(
        "batch-1",
        requests=6,
        done_requests=6,
        state=JobState.SUCCEEDED,
        name="jobs/1",
        output="gs://bucket/out",
        parts=(Part("gs://bucket/out/a.jsonl", 100),),
    )
    runtime = SimpleNamespace(
        provider=lambda _: Provider(),
        display_name=lambda _: "lowtide-1",
        retry_backoff=SimpleNamespace(seconds=lambda _: 1.0),
        settings=SimpleNamespace(output_grace_seconds=60.0),
    )

    move = late_rows(cast("Runtime", runtime), held_job(job, a_batch("batch"), Stage.SETTLE), missing=4)

    assert isinstance(move, Move)
    assert move.stage is Stage.SETTLE
    assert move.fields["doubted"]
