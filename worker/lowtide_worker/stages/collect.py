"""collect: streams a job's output into the spool and finds its segments as the bytes pass."""

from __future__ import annotations

import logging
from typing import IO, cast

from lowtide.layout import BatchFiles
from lowtide.messages import Stage
from lowtide.states import JobState
from lowtide_worker.clock import Done, Held, Move
from lowtide_worker.crashpoints import reach
from lowtide_worker.ledger import encoded_error
from lowtide_worker.providers import Missing, ProviderJob
from lowtide_worker.runtime import Runtime
from lowtide_worker.segments import SegmentCutter, SegmentedWriter

log = logging.getLogger(__name__)


def collect(runtime: Runtime, job: Held) -> Move | Done:
    """Fetches the output of an ended job and puts its segments on the clock."""
    settings = runtime.settings
    provider = runtime.provider(job.batch["provider"])
    source = ProviderJob(
        name=job.fields["name"],
        display_name=None,
        state=JobState(job.fields["state"]),
        provider_state=job.fields["provider_state"],
        output=job.fields["output"],
    )
    cutter = SegmentCutter(max_bytes=settings.segment_bytes, max_rows=settings.segment_rows)
    reach("collect.before-download")
    try:
        with runtime.spool.write(BatchFiles(job.batch_id).output(job.number("number"))) as file:
            sink = SegmentedWriter(file, cutter, runtime.clock.keeper(job))
            provider.download(source, cast("IO[bytes]", sink))
            reach("collect.before-output-complete")
        reach("collect.after-output-complete")
    except Missing as missing:
        log.warning("job %s: its output is gone: %s", job.fields["id"], missing)
        return Move(stage=Stage.SETTLE, fields={"error": encoded_error(missing.error)})
    ends = cutter.finish()
    if not ends:
        return Move(stage=Stage.SETTLE)
    runtime.ledger.segment(job, "output", ends)
    reach("collect.after-segments")
    return Done({"state": job.fields["state"], "segments": len(ends)})
