"""Warnings about environment variables that look like settings but are none."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def warn_of_unknown_variables() -> None:
    """Warns of variables that look like settings but are none, most likely misspelt."""
    # The imports below take time, and without such variables there is nothing to check.
    if Path(".env").exists() or any(name.upper().startswith("LOWTIDE_") for name in os.environ):
        from lowtide.text import on_one_line
        from lowtide.variables import warn_of_unknown_variables as warn

        warn(lambda problem: print(f"lowtide: warning: {on_one_line(problem)}", file=sys.stderr))  # noqa: T201
