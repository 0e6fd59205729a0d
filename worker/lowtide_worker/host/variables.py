"""Variables that look like settings and are none."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator

from dotenv import dotenv_values

from lowtide_worker.settings import WorkerSettings

_PREFIX = "LOWTIDE_"
_OTHERS = {"LOWTIDE_FLOWER_BASIC_AUTH", "LOWTIDE_REDIS_SERVER", "LOWTIDE_CRASH_AT"}
_EMULATORS = "LOWTIDE_EMULATOR_"


def unknown_variables() -> Iterator[str]:
    """A sentence for each variable of the environment or of `.env` that has our prefix and that nothing reads."""
    known = {f"{_PREFIX}{name.upper()}" for name in WorkerSettings.model_fields} | _OTHERS
    for name in sorted({**os.environ, **dotenv_values(".env")}):
        upper = name.upper()
        if upper.startswith(_PREFIX) and upper not in known and not upper.startswith(_EMULATORS):
            near = difflib.get_close_matches(upper, known, n=1, cutoff=0.8)
            yield f"{name} is no setting and changes nothing" + (f": did you mean {near[0]}?" if near else "")
