"""`lowtide up`: runs a whole Lowtide on this machine, until Ctrl-C.

`run` starts and stops everything. `shape` decides what runs and `ports` where, by the `options`. `exports` has the
environment for other terminals, `announcement` what the user sees, and `supervision` restarts workers.
"""

from __future__ import annotations

from lowtide_cli.commands.up.options import Options
from lowtide_cli.commands.up.run import up

__all__ = ["Options", "up"]
