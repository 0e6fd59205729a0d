"""The workers that are running. The broker carries the question, as with `celery inspect`."""

from __future__ import annotations

from contextlib import closing

from lowtide import Settings
from lowtide.protocol import sender
from lowtide.store import announcements, connect, redis_errors


def worker_queues(redis_url: str | None = None, *, seconds: float = 1.0) -> dict[str, list[str]]:
    """Returns the queues that each worker serves, by the worker's name.

    - `redis_url`: the broker. None: the one in the settings.
    - `seconds`: time for the workers to answer. A worker that takes longer is not in the result.
    """
    url = redis_url or Settings().redis_url.get_secret_value()
    replies = sender(url).control.inspect(timeout=seconds).active_queues() or {}
    return {worker: [queue["name"] for queue in queues] for worker, queues in sorted(replies.items())}


def announced_workers(settings: Settings) -> list[str]:
    """Returns the names of the workers that announced themselves lately. Raises `StoreUnavailable`."""
    with redis_errors(settings.redis_url.get_secret_value()), closing(connect(settings)) as client:
        return sorted(one.announcement.worker for one in announcements(client) if one.fresh)
