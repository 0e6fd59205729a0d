"""The files that hold the accepted requests of a batch.

There are three files: the provider's lines; the keys with the users' metadata; and an index. The index has an `ENTRY`
for each request, and one more at the end.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import msgspec

PAIR = struct.Struct("<QQ")
"""An entry of the index of keys."""
ENTRY = struct.Struct("<QQQ")
"""An entry of the index: the sums over all requests before this one, which are where its line and its key line begin,
in bytes, and the estimated input tokens before it."""


class KeyLine(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A line of the file of keys: a request's wire key, the user's key, and the metadata."""

    wire: str
    key: str
    metadata: msgspec.Raw = msgspec.Raw(b"null")


class Accepted(NamedTuple):
    """The totals of the requests that were written to the spool."""

    total: int
    bytes: int
    tokens: int
    """Estimated input tokens."""
    fingerprint: str
    """SHA-256 of keys, metadata and requests in order. Equal content has an equal fingerprint."""
    groups: int = 1
    """The number of groups of requests that cannot share a job with another group."""


key_decoder = msgspec.json.Decoder(KeyLine)
decode_key = key_decoder.decode
