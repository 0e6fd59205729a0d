"""The worker of Lowtide, a Celery application: stages, clock, providers and handlers.

Start it with `celery -A lowtide_worker worker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowtide.extras import installed, missing

if TYPE_CHECKING:
    from lowtide_worker.host.application import app

__all__ = ["app"]


def __getattr__(name: str) -> object:
    """Builds the application at its first use, so that other modules can be imported without valid settings.

    Raises `SystemExit` where the extra `worker` is not installed.
    """
    if name == "app":
        if not installed("worker"):
            raise SystemExit(f"lowtide: {missing('the worker', 'worker')}")
        from lowtide_worker.host.application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
