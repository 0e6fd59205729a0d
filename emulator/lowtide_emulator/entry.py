"""The entry point of `lowtide-emulator`: the command, or one line if its extra is not installed."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line. Prints one line and exits with 1 if the extra `emulator` is not installed."""
    try:
        from lowtide_emulator.cli import main as run
    except ModuleNotFoundError as missing:
        if missing.name not in {"rich", "starlette", "typer", "uvicorn"}:
            raise
        sys.exit('lowtide-emulator: not installed on this host: pip install "lowtide[emulator]"')
    run()
