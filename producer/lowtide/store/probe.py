"""The question whether Redis answers, as probes ask it: with short waits, and at most once a second."""

from __future__ import annotations

import threading
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lowtide.settings import Settings
from lowtide.store.connection import connect

_PING_SECONDS = 0.5
"""Longest wait for one reply of Redis, in seconds. A probe asks twice at most; by default Kubernetes waits a second."""
_FRESH_SECONDS = 1.0
"""Time for which the answer of Redis counts for further probes, in seconds."""


class RedisProbe:
    """The answer of one Redis to probes. Threads may share it."""

    def __init__(self, settings: Settings) -> None:
        self._client = connect(settings, seconds=_PING_SECONDS)
        # A connection that has broken since the last probe is no reason to be unready; Redis is.
        self._client.set_retry(Retry(NoBackoff(), 1))
        self._asking = threading.Lock()
        self._asked, self._answer = float("-inf"), ""

    def why_not(self) -> str:
        """Returns the reason why Redis does not serve; "" where it does."""
        with self._asking:
            if time.monotonic() - self._asked > _FRESH_SECONDS:
                try:
                    self._client.ping()
                    self._answer = ""
                except redis.RedisError as error:
                    # Without the error's text, which may have the address in it: any client may read this.
                    self._answer = f"Redis does not serve: {type(error).__name__}"
                self._asked = time.monotonic()
            return self._answer
