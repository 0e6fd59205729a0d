"""The end of a batch's deletion."""

from __future__ import annotations

from lowtide import Batch, BatchNotFound


def is_gone(batch: Batch) -> bool:
    """Whether no record of the batch is left."""
    try:
        batch.status()
    except BatchNotFound:
        return True
    return False
