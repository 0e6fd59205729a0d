"""Warnings of what is missing for a batch: a worker that listens for its handler, or one that serves its provider."""

from __future__ import annotations

import logging
import re
import time

from lowtide.options import Options
from lowtide.store import Store

log = logging.getLogger(__name__)

_ASKED_SECONDS = 1.0
"""For so long a producer takes it for granted that the workers that it found are there."""
_SILENT_SECONDS = 600.0
"""For so long a process does not repeat a warning. A service that submits often would fill its log with it."""
_MOST_WARNINGS = 1000
"""Most warnings that a process remembers: handlers may have any names. It forgets the oldest."""
_NUMBER = re.compile(r"\d+")
_warned: dict[tuple[str, str, str], float] = {}
"""When this process last logged a warning, by Redis, the name of what is missing, and text, the oldest first. A service
may make a queue for each of its requests."""


class Absences:
    """The warnings of one producer. Threads may share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: dict[tuple[str | None, str | None, str], float] = {}
        """When workers were last found to be there, for handlers and a provider."""
        self._warned_of_budgets = False

    def warn(self, options: Options) -> None:
        """Logs what a batch of these options would wait for. Of many within a second, it asks for one only."""
        handlers = options.on_result, options.on_finished
        asked = (*handlers, options.provider)
        last, now = self._asked.get(asked), time.monotonic()
        if last is not None and now - last < _ASKED_SECONDS:
            return
        silence, untold = map(self._store.silence, handlers)
        unserved, elsewhere = self._store.doubts_about_workers(options.provider)
        if silence:
            self._warn(options.on_result, f"{silence}; until then the results wait", now)
        if untold:
            self._warn(options.on_finished, f"on_finished: {untold}; until then the batch event waits", now)
        if unserved:
            self._warn(options.provider, f"{unserved}; until then the batch waits", now)
        if elsewhere and not self._warned_of_budgets:
            self._warned_of_budgets = True
            log.warning(
                "LOWTIDE_BUDGETS differs from that of worker %s, which counts: small batches without a budget may wait "
                "for one in a shared job; give producers and workers the same value",
                elsewhere,
            )
        if not silence and not untold and not unserved:
            self._asked = {asked: now}

    def _warn(self, name: str | None, text: str, now: float) -> None:
        """Logs a warning, unless this process has done so a short time ago. It may differ by an age in it.

        - `name`: of the handler or provider; one that differs by a digit is another one.
        """
        warning = self._store.place, name or "", _NUMBER.sub("", text)
        last = _warned.get(warning)
        if last is not None and now - last < _SILENT_SECONDS:
            return
        _warned.pop(warning, None)
        # A list, as other threads change it meanwhile; one of them may have removed the same.
        for oldest in list(_warned)[: max(0, len(_warned) + 1 - _MOST_WARNINGS)]:
            _warned.pop(oldest, None)
        _warned[warning] = now
        log.warning("%s", text)
