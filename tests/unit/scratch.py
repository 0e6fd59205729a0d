"""A spool for the examples of a property: Hypothesis gives a test one folder for all of them."""

from __future__ import annotations

from functools import cache
from tempfile import TemporaryDirectory

from lowtide.spool import Spool


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="lowtide-unit-")


def emptied() -> Spool:
    """The same spool for each example, without batches."""
    spool = Spool(_folder().name)
    spool.delete_folder("batches")
    return spool
