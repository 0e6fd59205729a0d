"""The `lowtide` command: submit batches, watch them, fetch results, and run a whole stack on one machine.

- `app`: the list of all commands, with their options and help.
- `commands`: the work of each command, one file a command.
- `local`: Redis, workers and emulators as child processes on this machine.
- `terminal`: streams, output, errors and exit codes.

The command uses the store through `lowtide`, like any producer. Only the commands that need the worker package import
it. `up` and `demo` start the emulator as a separate process; only its stand-ins for Google Cloud are imported.
"""

from __future__ import annotations

from lowtide_cli.entry import main

__all__ = ["main"]
