"""Hints: events of the provider that say that a job has ended. They make its poll due, and change nothing else."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import redis

from lowtide.protocol import Stage, keys
from lowtide.settings import Settings
from lowtide.states import ProviderName
from lowtide.store import scripts
from lowtide.store.connection import connect, redis_errors

log = logging.getLogger("lowtide.hooks")

_REMEMBERED_SECONDS = 86_400.0
_MOST_REMEMBERED = 100_000
_PAUSE_SECONDS = 1.0
"""Shortest time between two polls of a job that hints ask for, in seconds."""
_STORE_SECONDS = 2.0
"""Longest wait for Redis, in seconds: the provider wants an answer soon, and sends the event again."""


class Hints:
    """The entrance of hints into the store. Threads may share it."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.redis_url.get_secret_value()
        self._hint = scripts.hint.load(connect(settings, seconds=_STORE_SECONDS))

    def give(self, provider: ProviderName, event: str, *, job: str, names: Sequence[str]) -> str:
        """Makes the poll of a job due now.

        - `event`: id of the event. One that came within the last day changes nothing.
        - `job`: Lowtide's id of the job; "" where the event does not name it.
        - `names`: last parts of the names that the provider may have for the job.

        Returns `due`, `replayed`, `unknown` (no job of Lowtide's), `over` (the job's end is known) or `other` (it names
        no job). Raises `StoreUnavailable`.
        """
        with redis_errors(self._url):
            try:
                outcome, resumed = self._given(provider, event, job, names)
            except redis.ConnectionError:
                # An idle connection may have been closed. The id of the event makes a second call harmless.
                outcome, resumed = self._given(provider, event, job, names)
        if resumed:
            log.info("events of the provider come again: jobs are polled rarely", extra={"event": "hooks.resumed"})
        return str(outcome.decode())

    def _given(self, provider: ProviderName, event: str, job: str, names: Sequence[str]) -> tuple[bytes, int]:
        outcome, resumed = self._hint(
            events=keys.HINTS,
            live=keys.live(provider),
            clock=keys.clock(Stage.POLL.queue),
            hooks=keys.HOOKS,
            counters=keys.COUNTERS,
            event=event,
            kept=_REMEMBERED_SECONDS,
            most=_MOST_REMEMBERED,
            job_id=job,
            pause=_PAUSE_SECONDS,
            create_stage=Stage.CREATE,
            poll_stage=Stage.POLL,
            job_hash=keys.job(""),
            job_member=keys.job_member(""),
            names=list(names),
        )
        return outcome, resumed


def is_silent(times: Mapping[bytes, float]) -> bool | None:
    """Returns whether events that should have come did not; None as long as none has come or was missed.

    - `times`: the members of the key `HOOKS`, with their scores.
    """
    return times.get(b"missed", 0.0) >= times.get(b"received", 0.0) if times else None
