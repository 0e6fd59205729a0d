"""Named places where the chaos tests kill this process, to prove that it may die anywhere.

`LOWTIDE_CRASH_AT=name` makes the process kill itself with SIGKILL when it comes there; `name:3` at the third time.
With the variable unset, `reach` is an empty function.
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("LOWTIDE_CRASH_AT", "").partition(":")
_left = int(_count or 1)


def _reach(name: str) -> None:
    global _left
    if name == _name:
        _left -= 1
        if _left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _pass(name: str) -> None:
    del name


reach = _reach if _name else _pass
"""Call with the place's name, `<stage>.<before or after>-<step>`."""
