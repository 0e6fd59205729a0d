"""Finding the batch that a command names."""

from __future__ import annotations

from lowtide import Batch, BatchQueue
from lowtide.protocol import BATCH_ID
from lowtide_cli.errors import CommandError


def find(batch_id: str) -> Batch:
    """The batch of this id. Raises `CommandError` or `LowtideError`."""
    if not BATCH_ID.fullmatch(batch_id):
        raise CommandError(f"{batch_id!r} is not a batch id; `lowtide list` shows them")
    return BatchQueue().get(batch_id)
