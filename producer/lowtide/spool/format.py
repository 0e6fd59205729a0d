"""The files that hold the accepted requests of a batch.

There are three files: the provider's lines; the keys with the users' metadata; and an index. The index has a pair of
unsigned 64-bit offsets (little-endian; into the lines, into the keys) for each request, and one more pair at the end.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import msgspec

PAIR = struct.Struct("<QQ")


class KeyLine(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A line of the file of keys: a request's wire key, the user's key, and the metadata."""

    wire: str
    key: str
    metadata: msgspec.Raw = msgspec.Raw(b"null")


class Accepted(NamedTuple):
    """The totals of the requests that were written to the spool."""

    total: int
    bytes: int
    fingerprint: str
    """SHA-256 of keys, metadata and requests in order. Equal content has an equal fingerprint."""
    groups: int = 1
    """The number of groups of requests that cannot share a job with another group."""


key_decoder = msgspec.json.Decoder(KeyLine)
decode_key = key_decoder.decode
