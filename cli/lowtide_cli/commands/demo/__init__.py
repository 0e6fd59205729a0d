"""`lowtide demo`: a few hundred requests through real processes, with every result checked.

`run` starts the processes, `batch` follows a batch and checks its results, `topics` makes the requests, and `vertex` is
the variant on Vertex AI.
"""

from __future__ import annotations

from lowtide_cli.commands.demo.run import SUGGESTED, demo

__all__ = ["SUGGESTED", "demo"]
