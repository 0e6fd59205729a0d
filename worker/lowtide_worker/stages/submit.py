"""submit: cuts a batch into jobs within the provider's limits."""

from __future__ import annotations

from lowtide.requests import RequestReader
from lowtide.states import Mode
from lowtide_worker.clock import Done, Held
from lowtide_worker.crashpoints import reach
from lowtide_worker.ledger import Rows
from lowtide_worker.runtime import Runtime


def submit(runtime: Runtime, batch: Held) -> Done:
    """Plans the jobs of a batch and puts them on the clock."""
    settings = runtime.settings
    reader = RequestReader(runtime.spool, batch.batch_id)
    cuts = reader.cuts(
        batch.number("total"),
        max_requests=settings.max_requests_per_job,
        max_bytes=settings.max_job_bytes(Mode(batch.fields["mode"])),
    )
    jobs = [Rows(first=first, last=last) for first, last in cuts]
    reach("submit.before-plan")
    runtime.ledger.plan(batch, jobs)
    reach("submit.after-plan")
    return Done({"jobs": len(jobs)})
