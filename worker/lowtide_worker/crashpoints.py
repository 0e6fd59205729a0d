"""Named places where the chaos tests kill this process, or stop it for a while: it may die, or be late, anywhere.

`LOWTIDE_CRASH_AT=name` makes the process kill itself with SIGKILL when it comes there, `LOWTIDE_FREEZE_AT=name` stop
itself with SIGSTOP until somebody lets it go on; `name:3` at the third time. With neither, `reach` does nothing.
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
"""Call with the place's name, `<stage>.<before or after>-<step>`."""
