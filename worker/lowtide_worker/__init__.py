"""The worker side of Lowtide: stages, clock, providers and handlers, as one Celery application.

`celery -A lowtide_worker worker` runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lowtide_worker.host.application import app

__all__ = ["app"]


def __getattr__(name: str) -> object:
    """Builds the application when it is asked for: who only reads settings need not have usable ones."""
    if name == "app":
        from lowtide_worker.host.application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
