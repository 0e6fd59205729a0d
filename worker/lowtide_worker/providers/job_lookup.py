"""Looks at a provider's jobs: one by one, or by pages of its list where many are due together."""

from __future__ import annotations

import logging
import time
from threading import Lock

from lowtide_worker.providers.protocol import Provider, ProviderError, ProviderJob

log = logging.getLogger(__name__)

_FRESH_SECONDS = 1.0
_MANY = 8
"""So many jobs within `_FRESH_SECONDS` are worth a list."""
_MOST_PAGES = 4
_REST_SECONDS = 60.0


class Looks:
    """What this process saw of one provider's jobs a moment ago; threads may share it.

    The list is believed only where it says of a job what was known before, so that there is nothing to do but to wait.
    For everything else the job itself is asked.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._lock = Lock()
        self._asked: dict[str, float] = {}
        self._list: _List | None = None
        self._rest_until = 0.0

    def at(self, name: str, known: str | None) -> ProviderJob:
        """A job as it is now; `known` is the provider's word for its state when it was seen last.

        Raises as `Provider.get`.
        """
        with self._lock:
            told = self._told(name, known)
        return told or self._provider.get(name)

    def _told(self, name: str, known: str | None) -> ProviderJob | None:
        """What the list says of a job, if it is asked at all and knows nothing new."""
        now = time.monotonic()
        if self._list is not None and now - self._list.began > _FRESH_SECONDS:
            if self._list.told <= self._list.pages:
                # Too many other jobs in it, or too much news.
                self._rest_until = now + _REST_SECONDS
            self._list = None
        if self._list is None:
            self._asked = {job: at for job, at in self._asked.items() if now - at <= _FRESH_SECONDS} | {name: now}
            if len(self._asked) < _MANY or now < self._rest_until:
                return None
            self._asked.clear()
            self._list = _List(self._provider, now)
        return self._list.tell(name, known)


class _List:
    """The provider's list, fetched page by page as far as it is needed to find a job."""

    def __init__(self, provider: Provider, began: float) -> None:
        self.began = began
        self.pages = self.told = 0
        self._provider = provider
        self._jobs: dict[str, ProviderJob] = {}
        self._next: str | None = None
        self._over = False

    def tell(self, name: str, known: str | None) -> ProviderJob | None:
        while name not in self._jobs and not self._over:
            self._fetch()
        job = self._jobs.get(name)
        if job is None or job.provider_state != known or job.state.terminal:
            return None
        self.told += 1
        return job

    def _fetch(self) -> None:
        self.pages += 1
        try:
            jobs, self._next = self._provider.jobs(self._next)
        except (ProviderError, ValueError) as error:
            log.info("the list of jobs cannot be had, so each is asked by itself: %s", error)
            jobs, self._next = [], None
        self._jobs |= {job.name: job for job in jobs}
        self._over = self._next is None or self.pages == _MOST_PAGES
