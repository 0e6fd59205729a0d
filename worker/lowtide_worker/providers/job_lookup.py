"""Lookups of jobs' states: one call per job, or a few pages of the provider's list where many jobs are polled at once.

A list page holds a hundred jobs. So a worker that polls many jobs within a second needs far fewer calls.
"""

from __future__ import annotations

import logging
import time
from threading import Lock

from lowtide_worker.events import Event
from lowtide_worker.providers.protocol import Provider, ProviderError, ProviderJob

log = logging.getLogger(__name__)

_FRESH_SECONDS = 1.0
"""A fetched list is used for this long."""
_MANY = 8
"""The list is fetched when at least this many jobs are looked up within `_FRESH_SECONDS`."""
_MOST_PAGES = 4
_REST_SECONDS = 60.0
"""No list is fetched for this long after one that answered no more lookups than it has pages."""


class JobLookup:
    """The lookup of one provider's jobs, with a short-lived cache of its list. Threads may share it.

    The list answers a lookup only if it shows the state that was known before, and the job has not ended. Then there
    is nothing to do but to wait, and a list that lags behind does no harm. In all other cases the job itself is
    fetched.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._lock = Lock()
        self._looked_up: dict[str, float] = {}
        """When each job was looked up last, by its name, in seconds of the monotonic clock."""
        self._list: _List | None = None
        self._rest_until = 0.0

    def get(self, name: str, known: str | None) -> ProviderJob:
        """Returns a job as it is now.

        - `name`: the provider's name of the job.
        - `known`: the provider's own word for the state that the last poll saw (`ProviderJob.provider_state`). With
          None, the job itself is always fetched.

        Raises the errors of `Provider.get`.
        """
        with self._lock:
            unchanged = self._unchanged(name, known)
        return unchanged or self._provider.get(name)

    def _unchanged(self, name: str, known: str | None) -> ProviderJob | None:
        """The job from the list; None where the list is not used, or does not show the known state."""
        now = time.monotonic()
        if self._list is not None and now - self._list.began > _FRESH_SECONDS:
            if self._list.answered <= self._list.pages:
                # It holds too many other jobs, or too many of ours have changed: the list saves no calls.
                self._rest_until = now + _REST_SECONDS
            self._list = None
        if self._list is None:
            recent = {job: at for job, at in self._looked_up.items() if now - at <= _FRESH_SECONDS}
            self._looked_up = recent | {name: now}
            if len(self._looked_up) < _MANY or now < self._rest_until:
                return None
            self._looked_up.clear()
            self._list = _List(self._provider, now)
        return self._list.unchanged(name, known)


class _List:
    """The provider's list, fetched page by page until the wanted job is found."""

    def __init__(self, provider: Provider, began: float) -> None:
        self.began = began
        self.pages = 0
        """Pages fetched so far."""
        self.answered = 0
        """Lookups that needed no call of their own."""
        self._provider = provider
        self._jobs: dict[str, ProviderJob] = {}
        self._next: str | None = None
        self._over = False

    def unchanged(self, name: str, known: str | None) -> ProviderJob | None:
        while name not in self._jobs and not self._over:
            self._fetch()
        job = self._jobs.get(name)
        if job is None or job.provider_state != known or job.state.terminal:
            return None
        self.answered += 1
        return job

    def _fetch(self) -> None:
        self.pages += 1
        try:
            jobs, self._next = self._provider.jobs(self._next)
        except (ProviderError, ValueError) as error:
            log.info(
                "the list of jobs cannot be fetched, so each job is fetched by itself: %s",
                error,
                extra=Event.PROVIDER_LIST_FAILED.extra,
            )
            jobs, self._next = [], None
        self._jobs |= {job.name: job for job in jobs}
        self._over = self._next is None or self.pages == _MOST_PAGES
