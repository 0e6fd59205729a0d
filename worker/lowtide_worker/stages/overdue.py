"""The reason why a job was not created before the deadline of its batch."""

from __future__ import annotations

from lowtide.models import ResultError
from lowtide.states import Awaited
from lowtide_worker.state import HeldJob

BUDGET = "BUDGET"
"""The reason of requests that are not sent, because a budget leaves too little for them."""


def overdue(job: HeldJob) -> ResultError | None:
    """Returns the reason; None where no reason is known."""
    if job.record.error is not None or job.record.awaits is None:
        return job.record.error
    if job.record.awaits is Awaited.BUDGET:
        why = job.record.shortage or job.record.problem or "a budget was used up"
        return ResultError(reason=BUDGET, message=f"its job waited until the deadline of the batch: {why}")
    if job.record.awaits is Awaited.TOKENS:
        message = f"its job waited for tokens of {job.batch.model} until the deadline of the batch"
        return ResultError(reason="RESOURCE_EXHAUSTED", message=message)
    return ResultError(reason="EXPIRED", message="its job waited for a slot until the deadline of the batch")
