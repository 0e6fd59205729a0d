"""Events of the provider: whether they come, so that jobs with a webhook may be polled rarely."""

from __future__ import annotations

from typing import cast

import redis

from lowtide.protocol import Stage, keys
from lowtide.store import is_silent
from lowtide_worker.state import scripts
from lowtide_worker.state.held import HeldJob


class Hooks:
    """The record of when an event last came, and of when one was last missed."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._miss = scripts.miss.load(client)

    def silent(self) -> bool | None:
        """Returns whether events that should have come did not; None as long as none has come or was missed."""
        return is_silent(
            dict(cast("list[tuple[bytes, float]]", self._redis.zrange(keys.HOOKS, 0, -1, withscores=True)))
        )

    def missed(self, job: HeldJob) -> bool:
        """Notes that a job was found ended without an event. All other jobs are then polled at once.

        Returns whether events came until now.
        """
        return bool(
            self._miss(
                job=keys.entity(job.member),
                hooks=keys.HOOKS,
                live=keys.live(job.batch.provider),
                clock=keys.clock(Stage.POLL.queue),
                poll_stage=Stage.POLL,
                job_hash=keys.job(""),
                job_member=keys.job_member(""),
            )
        )
