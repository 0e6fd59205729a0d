"""The restart of a collect whose output has changed."""

from __future__ import annotations

import redis

from lowtide.protocol import keys
from lowtide_worker.state import scripts
from lowtide_worker.state.held import HeldJob, Superseded


def restart_collect(client: redis.Redis, job: HeldJob) -> None:
    """Has a job that is being collected begin at the first byte of its output again. Raises `Superseded`."""
    begun = scripts.restart.load(client)(job=keys.entity(job.member), token=job.token)
    if not begun:
        raise Superseded(job.member)
