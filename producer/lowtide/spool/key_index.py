"""Finds the ordinal of a request by its user's key."""

from __future__ import annotations

import hashlib
import sys
from array import array
from bisect import bisect_left

from lowtide.protocol import BatchFiles
from lowtide.spool.blobs import Spool
from lowtide.spool.format import PAIR, decode_key


class KeyIndex:
    """Finds a request by its user's key, where that key was sent to the provider: sorted hashes, with their ordinals.

    Two keys may have the same hash: the caller must compare the key itself.
    """

    def __init__(self, pairs: array[int]) -> None:
        self._hashes, self._ordinals = pairs[::2], pairs[1::2]

    @staticmethod
    def write(spool: Spool, files: BatchFiles) -> None:
        """Writes the index of a batch, 16 bytes a request."""
        keys = enumerate(spool.lines(files.keys))
        pairs = sorted((_key_hash(decode_key(line).key), ordinal) for ordinal, line in keys)
        with spool.write(files.key_index) as file:
            file.write(b"".join(PAIR.pack(*pair) for pair in pairs))

    @classmethod
    def read(cls, spool: Spool, files: BatchFiles) -> KeyIndex:
        """Reads the whole index of a batch into memory. The batch's requests fit into one provider job."""
        pairs = array("Q", spool.read(files.key_index))
        if sys.byteorder == "big":
            pairs.byteswap()
        return cls(pairs)

    def ordinal(self, key: str) -> int | None:
        """Returns the ordinal that a key may have; None where the batch does not have the key."""
        wanted = _key_hash(key)
        at = bisect_left(self._hashes, wanted)
        return self._ordinals[at] if at < len(self._hashes) and self._hashes[at] == wanted else None


def _key_hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
