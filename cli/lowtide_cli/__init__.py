"""The `lowtide` command: submit batches, watch them, fetch results, and run a whole stack on one machine.

It speaks to the store through `lowtide` like any producer. Only the commands that need them import the worker
package, and none imports the emulator: `up` and `demo` start it as a process of its own. Only what starts its
stand-ins for Google Cloud comes from it.
"""

from __future__ import annotations

from lowtide_cli.app import main

__all__ = ["main"]
