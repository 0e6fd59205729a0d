"""The entry point of `lowtide-emulator`. It is outside the emulator's package, which needs an extra to be imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the emulator's command. Ends with one line and 1 where the extra `emulator` is not installed."""
    try:
        from lowtide_emulator.cli import main as run  # deferred: it may not be installed

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as missing:
        if getattr(missing, "name", None) not in {None, "rich", "typer"}:
            raise
        from lowtide.extras import install

        sys.exit(f"lowtide-emulator: the emulator is not installed on this host: {install('emulator')}")
