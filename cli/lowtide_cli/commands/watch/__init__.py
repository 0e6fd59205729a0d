"""`lowtide watch`: the progress of a batch, live on a terminal, else a line per change.

`follow` reads the status until the batch is finished, `picture` shows one status, and `pace` estimates the remaining
time.
"""

from __future__ import annotations

from lowtide_cli.commands.watch.follow import follow, show_progress, watch

__all__ = ["follow", "show_progress", "watch"]
