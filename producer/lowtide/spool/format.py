"""The files that hold the accepted requests of a batch.

There are three: the provider's lines, the keys with the users' metadata, and an index of two unsigned 64-bit offsets
(little-endian; into lines, into keys) per request, with one more pair at the end.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import msgspec

PAIR = struct.Struct("<QQ")


class KeyLine(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A request's wire key, with its user's key and metadata, as they lie in the spool."""

    wire: str
    key: str
    metadata: msgspec.Raw = msgspec.Raw(b"null")


class Accepted(NamedTuple):
    """What the spool took in."""

    total: int
    bytes: int
    fingerprint: str
    """SHA-256 over keys, metadata and requests in order: equal for equal content."""
    groups: int = 1
    """Into how many groups they fall that cannot share a job."""


key_decoder = msgspec.json.Decoder(KeyLine)
decode_key = key_decoder.decode
