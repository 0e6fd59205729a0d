"""The `lowtide` command: submit batches, watch them, fetch results, and run a whole stack on one machine.

- `app`: the list of all commands, with their options and help.
- `commands`: the work of each command, one file a command.
- `local`: Redis, workers and emulators as child processes on this machine.
- `terminal`: streams, output, errors and exit codes.

The command's own libraries are the extra `cli`; without it, `main` says so.

The command uses the store through `lowtide`, like any producer. Only the commands that need the worker package import
it. `up` and `demo` start the emulator as a separate process; only its stand-ins for Google Cloud are imported.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line.

    Ends with one line and exit code 130 after Ctrl-C, even while modules are imported, and with one line and 1 where
    the extra `cli` is not installed.
    """
    begun = False
    try:
        from lowtide_cli.entry import main as run  # deferred: Ctrl-C during an import must not be a traceback

        begun = True
        run()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print("lowtide: interrupted" + ("" if begun else ": nothing is done"), file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except ModuleNotFoundError as missing:
        if missing.name not in {"rich", "typer"}:
            raise
        from lowtide.extras import install

        sys.exit(f"lowtide: the command line is not installed on this host: {install('cli')}")
