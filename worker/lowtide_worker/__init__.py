"""The worker side of Lowtide: stages, clock, providers and handlers, as one Celery application.

`celery -A lowtide_worker worker` runs it.
"""

from __future__ import annotations

from lowtide_worker.application import app

__all__ = ["app"]
