"""A worker unlike the others: its wall clock is wrong, or it is of a newer version.

`CLOCK_OFFSET` names a file with the seconds to add to its wall clock, read at every look, so that the clock can jump.
`NEWER_VERSION` is the version of messages and records that it writes.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.fork_server import forget

_true_time = time.time
_offset = os.environ.get("CLOCK_OFFSET")


def _wrong_time() -> float:
    return _true_time() + float(Path(str(_offset)).read_text())


if _offset:
    # Libraries that were imported before hold the true one under names of their own.
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is _true_time and module.__name__ != __name__:
                setattr(module, name, _wrong_time)

if newer := os.environ.get("NEWER_VERSION"):
    # Modules that were imported before hold the true one under names of their own.
    for package in ("lowtide", "lowtide_worker"):
        forget(package)
    from lowtide import protocol
    from lowtide.protocol import messages

    protocol.VERSION = messages.VERSION = int(newer)
    protocol.RECORD_VERSION = messages.RECORD_VERSION = int(newer)

from lowtide_worker import app  # noqa: E402 - after what it must not see otherwise

__all__ = ["app"]
