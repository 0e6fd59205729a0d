"""The search for misspelt settings in the environment and in `.env`."""

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
    """Yields a warning for each variable with the prefix `LOWTIDE_` that nothing reads.

    Variables of the environment and of `.env` count. A similar name, if there is one, is suggested.
    """
    known = {f"{_PREFIX}{name.upper()}" for name in WorkerSettings.model_fields} | _OTHERS
    for name in sorted({**os.environ, **dotenv_values(".env")}):
        upper = name.upper()
        if upper.startswith(_PREFIX) and upper not in known and not upper.startswith(_EMULATORS):
            near = difflib.get_close_matches(upper, known, n=1, cutoff=0.8)
            yield f"{name} is not a setting and has no effect" + (f": did you mean {near[0]}?" if near else "")
