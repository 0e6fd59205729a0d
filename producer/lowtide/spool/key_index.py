"""Finds the ordinal of a request by its user's key."""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from contextlib import suppress
from itertools import count

from lowtide.errors import SpoolError
from lowtide.protocol import BatchFiles
from lowtide.spool.blobs import DamagedBlob, Spool
from lowtide.spool.reader import RequestReader

_PAIR = struct.Struct("<QQ")
"""The hash of a key, and its ordinal."""
_HASH_BITS = 64
_PART_BITS = 8
_SMALL_BATCH = 5000
"""Most requests of a batch whose keys are all read to find one."""
_AT_ONCE = 512
"""Entries that a search reads at once."""
_GUESSES = 8
"""Guesses of a search before it halves: hashes may be chosen to be uneven."""


class KeyIndex:
    """Finds a request by its user's key, where that key was sent to the provider: sorted hashes, with their ordinals.

    Two keys may have the same hash: the caller must compare the key itself.
    """

    def __init__(self, pairs: array[int]) -> None:
        self._hashes, self._ordinals = pairs[::2], pairs[1::2]

    @staticmethod
    def write(spool: Spool, batch_id: str) -> None:
        """Writes the index of a batch, 16 bytes a request. It holds 12 bytes a request in memory."""
        # By the first byte of the hash, so that only a part is sorted at once.
        parts = [(array("Q"), array("I")) for _ in range(1 << _PART_BITS)]
        for ordinal, line in enumerate(RequestReader(spool, batch_id).all_keys()):
            number = _key_hash(line.key)
            hashes, ordinals = parts[number >> _HASH_BITS - _PART_BITS]
            hashes.append(number)
            ordinals.append(ordinal)
        with spool.write(BatchFiles(batch_id).key_index) as file:
            for part in parts:
                file.write(b"".join(_PAIR.pack(*pair) for pair in sorted(zip(*part, strict=True))))

    @classmethod
    def read(cls, spool: Spool, batch_id: str) -> KeyIndex:
        """Reads the whole index of a batch into memory. The batch's requests fit into one provider job."""
        name = BatchFiles(batch_id).key_index
        return cls(_numbers(spool.read(name), name))

    @staticmethod
    def is_whole(spool: Spool, batch_id: str, total: int) -> bool:
        """Returns whether the index of a batch of `total` requests is there, in its whole length."""
        return spool.readable_size(BatchFiles(batch_id).key_index) == total * _PAIR.size

    @staticmethod
    def search(spool: Spool, batch_id: str, key: str, total: int) -> list[int]:
        """Returns the ordinals that a key may have. It reads a few KiB of the index, however long it is.

        Hashes are spread evenly, so the place of one in the order is known almost exactly.
        """
        name, wanted = BatchFiles(batch_id).key_index, _key_hash(key)
        low, high = 0, total  # the entries between which it is
        below, above = 0, 1 << _HASH_BITS  # the hashes there
        for tries in count():
            if low >= high:
                return []
            share = (wanted - below) / (above - below) if tries < _GUESSES else 0.5
            start = max(low, min(low + int((high - low) * share) - _AT_ONCE // 2, high - _AT_ONCE))
            end = min(start + _AT_ONCE, high)
            found = KeyIndex(_numbers(spool.read(name, start * _PAIR.size, end * _PAIR.size), name))
            if wanted < found._hashes[0]:
                high, above = start, found._hashes[0]
            elif wanted > found._hashes[-1]:
                low, below = end, found._hashes[-1]
            else:
                return list(found._ordinals[slice(*found._span(wanted))])
        return []

    def _span(self, wanted: int) -> tuple[int, int]:
        return bisect_left(self._hashes, wanted), bisect_right(self._hashes, wanted)

    def ordinal(self, key: str) -> int | None:
        """Returns the ordinal that a key may have; None where the batch does not have the key."""
        wanted = _key_hash(key)
        at = bisect_left(self._hashes, wanted)
        return self._ordinals[at] if at < len(self._hashes) and self._hashes[at] == wanted else None


def _numbers(data: bytes, name: str) -> array[int]:
    try:
        pairs = array("Q", data)
    except ValueError as error:  # of a length that is no multiple
        raise DamagedBlob(f"{name} ends within an entry; restore it from a backup") from error
    if sys.byteorder == "big":
        pairs.byteswap()
    return pairs


def _key_hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def find_ordinal(spool: Spool, batch_id: str, reader: RequestReader, key: str, total: int) -> int | None:
    """Returns the ordinal of a key; None where the batch does not have it. `reader` is that of the batch.

    The keys of a small batch are read. Of any other batch the index is; the first call for the batch writes it.
    """
    if total <= _SMALL_BATCH or reader.is_packed or not _indexed(spool, batch_id, total):
        return next((ordinal for ordinal, line in enumerate(reader.all_keys()) if line.key == key), None)
    candidates = KeyIndex.search(spool, batch_id, key, total)
    found = reader.keys(candidates)
    return next((ordinal for ordinal in candidates if found[ordinal].key == key), None)


def _indexed(spool: Spool, batch_id: str, total: int) -> bool:
    """Whether a batch has its index now. An account that may only read the spool cannot write it."""
    if not KeyIndex.is_whole(spool, batch_id, total):
        with suppress(SpoolError):
            KeyIndex.write(spool, batch_id)
            return True
        return False
    return True
