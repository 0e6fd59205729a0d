"""Finds the ordinal of a request by its user's key."""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from bisect import bisect_left

from lowtide.protocol import BatchFiles
from lowtide.spool.blobs import DamagedBlob, Spool
from lowtide.spool.reader import RequestReader

_PAIR = struct.Struct("<QQ")
"""The hash of a key, and its ordinal."""


class KeyIndex:
    """Finds a request by its user's key, where that key was sent to the provider: sorted hashes, with their ordinals.

    Two keys may have the same hash: the caller must compare the key itself.
    """

    def __init__(self, pairs: array[int]) -> None:
        self._hashes, self._ordinals = pairs[::2], pairs[1::2]

    @staticmethod
    def write(spool: Spool, batch_id: str) -> None:
        """Writes the index of a batch, 16 bytes a request."""
        keys = enumerate(RequestReader(spool, batch_id).all_keys())
        pairs = sorted((_key_hash(line.key), ordinal) for ordinal, line in keys)
        with spool.write(BatchFiles(batch_id).key_index) as file:
            file.write(b"".join(_PAIR.pack(*pair) for pair in pairs))

    @classmethod
    def read(cls, spool: Spool, batch_id: str) -> KeyIndex:
        """Reads the whole index of a batch into memory. The batch's requests fit into one provider job."""
        name = BatchFiles(batch_id).key_index
        try:
            pairs = array("Q", spool.read(name))
        except ValueError as error:  # of a length that is no multiple
            raise DamagedBlob(f"{name} ends within an entry; restore it from a backup") from error
        if sys.byteorder == "big":
            pairs.byteswap()
        return cls(pairs)

    @staticmethod
    def is_whole(spool: Spool, batch_id: str, total: int) -> bool:
        """Returns whether the index of a batch of `total` requests is there, in its whole length."""
        return spool.size(BatchFiles(batch_id).key_index) == total * _PAIR.size

    def ordinal(self, key: str) -> int | None:
        """Returns the ordinal that a key may have; None where the batch does not have the key."""
        wanted = _key_hash(key)
        at = bisect_left(self._hashes, wanted)
        return self._ordinals[at] if at < len(self._hashes) and self._hashes[at] == wanted else None


def _key_hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
