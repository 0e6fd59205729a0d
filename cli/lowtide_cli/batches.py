"""The batch that a command names by its id."""

from __future__ import annotations

from lowtide import Batch, BatchQueue
from lowtide.protocol import BATCH_ID
from lowtide_cli.terminal import CommandError


def find(batch_id: str) -> Batch:
    """Returns the batch with this id. Raises `CommandError` or `LowtideError`."""
    if not BATCH_ID.fullmatch(batch_id):
        raise CommandError(f"{batch_id!r} is not a batch id; `lowtide list` shows them")
    return BatchQueue().get(batch_id)
