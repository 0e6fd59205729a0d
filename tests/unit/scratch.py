"""A spool for the examples of a property: Hypothesis gives a test one folder for all of them."""

from __future__ import annotations

from functools import cache
from tempfile import mkdtemp

from lowtide.spool import Spool


@cache
def _folder() -> str:
    return mkdtemp(prefix="lowtide-unit-")  # among pytest's own folders


def emptied() -> Spool:
    """The same spool for each example, without batches."""
    spool = Spool(_folder())
    spool.delete_folder("batches")
    return spool
