"""Parts of files, as records name them."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Part(NamedTuple):
    """A file or table with requests or output at the provider."""

    name: str
    """The provider's name of it, such as a URI."""
    size: int
    """The size in bytes."""
    generation: int | None = None
    """The version that was found: the generation of an object, or when a table was last changed, in Unix milliseconds.
    None where the provider has no versions, or an earlier version of Lowtide recorded it."""


Range = tuple[int, int, int, int]
"""A range of bytes of a file of results: the numbers of its job and segment, its first byte, and the one behind its
last."""


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a job's downloaded output that is divided into segments, and the file that it came from."""

    bytes: int = 0
    """Size of the part, in bytes."""
    rows: int = 0
    """Number of its rows."""
    size: int | None = None
    """Size of the provider's file, in bytes; None where the provider does not say."""
    etag: str | None = None
    """The provider's entity tag for the file; None where there is none."""
