"""The transport under the name that users' Celery configuration has for it: see `lowtide_worker.host.transport`."""

from __future__ import annotations

from lowtide_worker.host.transport import Transport

__all__ = ["Transport"]
