"""collect: finds the segments of a job's output, where it lies or in the spool.

Output that the provider can read by ranges stays there; any other is streamed into the spool, and its segments are
found as the bytes pass.
"""

from __future__ import annotations

import logging
from typing import IO, cast

from lowtide.layout import BatchFiles
from lowtide.messages import Queue, Stage
from lowtide_worker.clock import Done, Held, Move
from lowtide_worker.crashpoints import reach
from lowtide_worker.ledger import encoded_error
from lowtide_worker.parts import encoded_parts, even_ends
from lowtide_worker.providers import Missing, Output, Part, Provider
from lowtide_worker.runtime import Runtime
from lowtide_worker.segments import SegmentCutter, SegmentedWriter

log = logging.getLogger(__name__)


def collect(runtime: Runtime, job: Held) -> Move | Done:
    """Puts the segments of an ended job's output on the clock."""
    provider = runtime.provider(job.batch["provider"])
    output = Output(
        job=job.fields["name"], location=job.fields["output"], key=job.batch.get("key_column") or Output.key
    )
    reach("collect.before-download")
    try:
        parts = provider.parts(output)
        ends = _download(runtime, provider, job, output) if parts is None else _in_place(runtime, job, parts)
    except Missing as missing:
        log.warning("job %s: its output is gone: %s", job.fields["id"], missing)
        return Move(stage=Stage.SETTLE, fields={"error": encoded_error(missing.error)})
    if not ends:
        return Move(stage=Stage.SETTLE)
    runtime.ledger.segment(job, "output", ends)
    reach("collect.after-segments")
    return Done({"state": job.fields["state"], "segments": len(ends)}, wakes=(Queue.RESULTS,))


def _download(runtime: Runtime, provider: Provider, job: Held, output: Output) -> list[int]:
    """Brings the output into the spool; returns where its segments end."""
    settings = runtime.settings
    cutter = SegmentCutter(max_bytes=settings.segment_bytes, max_rows=settings.segment_rows)
    with runtime.spool.write(BatchFiles(job.batch_id).output(job.number("number"))) as file:
        sink = SegmentedWriter(file, cutter, runtime.clock.keeper(job))
        provider.download(output, cast("IO[bytes]", sink))
        reach("collect.before-output-complete")
    reach("collect.after-output-complete")
    return cutter.finish()


def _in_place(runtime: Runtime, job: Held, parts: list[Part]) -> list[int]:
    """Notes what the output consists of; returns where its segments end, all parts being counted as one file."""
    runtime.clock.keep(job, {"parts": encoded_parts(parts)})
    return even_ends(parts, runtime.settings.segment_bytes)
