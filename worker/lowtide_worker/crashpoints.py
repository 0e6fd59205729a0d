"""Crash points: named places in the code where the chaos tests kill or freeze this process.

With `LOWTIDE_CRASH_AT=name` the process sends itself SIGKILL at that point, with `LOWTIDE_FREEZE_AT=name` SIGSTOP.
`name:3` means the third time. With neither variable, `reach` does nothing. The variables are read at the first point,
so a process may import this module before it knows them.
"""

from __future__ import annotations

import os
import signal
from functools import cache

_ENDS = {"LOWTIDE_CRASH_AT": signal.SIGKILL, "LOWTIDE_FREEZE_AT": signal.SIGSTOP}


def reach(name: str) -> None:
    """Marks a crash point. `name` is `<stage>.<before or after>-<step>`."""
    left = _left()
    if name not in left:
        return
    count, end = left.pop(name)
    if count > 1:
        left[name] = count - 1, end
    else:
        os.kill(os.getpid(), end)


@cache
def _left() -> dict[str, tuple[int, signal.Signals]]:
    """The points where this process ends, each with the number of times that it is still to be reached."""
    left: dict[str, tuple[int, signal.Signals]] = {}
    for variable, end in _ENDS.items():
        name, _, count = os.environ.get(variable, "").partition(":")
        if name:
            left[name] = int(count or 1), end
    return left
