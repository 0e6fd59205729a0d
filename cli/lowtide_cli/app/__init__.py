"""The list of all commands, with their options and help.

Each function imports the module that does the work when it runs, so that `--help` and shell completion are quick.
"""

from __future__ import annotations

# In the order in which `--help` lists them.
from lowtide_cli.app import one_machine, batches, singles, operations, hooks  # isort: skip
from lowtide_cli.app.root import app

__all__ = ["app", "batches", "hooks", "one_machine", "operations", "singles"]
