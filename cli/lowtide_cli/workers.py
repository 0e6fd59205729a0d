"""Which workers are alive, asked over the broker as `celery inspect` does."""

from __future__ import annotations

from lowtide import Settings
from lowtide.protocol import sender


def worker_queues(redis_url: str | None = None, *, seconds: float = 1.0) -> dict[str, list[str]]:
    """The queues that each worker serves which answers within `seconds`, by the worker's name."""
    url = redis_url or Settings().redis_url.get_secret_value()
    replies = sender(url).control.inspect(timeout=seconds).active_queues() or {}
    return {worker: [queue["name"] for queue in queues] for worker, queues in sorted(replies.items())}
