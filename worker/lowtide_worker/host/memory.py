"""The memory setting of worker processes: memory that one segment needed is kept for the next.

By default glibc returns freed memory to the system at once, and each page must be mapped again for the next segment.
That took a tenth of the time to collect and deliver.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 32 << 20


def keep_freed_memory() -> None:
    """Makes this process and its children keep up to 32 MiB of freed memory. Does nothing without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
