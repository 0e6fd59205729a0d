"""Crash points: named places in the code where the chaos tests kill or freeze this process.

With `LOWTIDE_CRASH_AT=name` the process sends itself SIGKILL at that point, with `LOWTIDE_FREEZE_AT=name` SIGSTOP.
`name:3` means the third time. With neither variable, `reach` does nothing.
"""

from __future__ import annotations

import os
import signal


def _armed(variable: str) -> tuple[str, int]:
    name, _, count = os.environ.get(variable, "").partition(":")
    return name, int(count or 1)


_left = {
    name: (count, end)
    for (name, count), end in (
        (_armed("LOWTIDE_CRASH_AT"), signal.SIGKILL),
        (_armed("LOWTIDE_FREEZE_AT"), signal.SIGSTOP),
    )
    if name
}


def _reach(name: str) -> None:
    if name not in _left:
        return
    count, end = _left.pop(name)
    if count > 1:
        _left[name] = count - 1, end
    else:
        os.kill(os.getpid(), end)


def _pass(name: str) -> None:
    del name


reach = _reach if _left else _pass
"""Marks a crash point. Its argument is the point's name, `<stage>.<before or after>-<step>`."""
