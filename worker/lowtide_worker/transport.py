"""The Redis transport under the name that users write into their Celery configuration.

The code is in `lowtide_worker.host.transport`.
"""

from __future__ import annotations

from lowtide_worker.host.transport import SentinelTransport, Transport

__all__ = ["SentinelTransport", "Transport"]
