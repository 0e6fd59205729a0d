"""The place of a batch's requests: every reader of requests asks here for a `RequestReader`.

- A batch with jobs of its own, a batch gathered from singles, and a batch that is not small have files in the spool.
- The requests of any other batch are in the store, compressed, until its bundle has its files. From then on they are in
  these files only. So a small batch costs no file of its own, which would be the slowest part of its submit.

register.lua stores them with the batch's record, and plan.lua removes them with the step that makes the jobs of the
bundle, when its files are on the disk.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import cast

import redis

from lowtide.protocol import BatchFiles, BatchRecord, keys
from lowtide.spool import PACKED_BYTES, DamagedBlob, RequestReader, Spool, packed_keys
from lowtide.store.connection import redis_errors

_AT_ONCE = 200
"""Batches whose requests are read from Redis at once."""
_LEVEL = 1
"""A higher level of compression takes twice the time, for a hundredth less."""
_MOST_RATIO = 32
"""Requests that would have to become so many times smaller are not compressed: it would be in vain, and take long."""


def small_enough(packed: bytes, most: int) -> bytes:
    """Returns the packed requests of a batch in the form of the store; b"" where that has more than `most` bytes."""
    if len(packed) > min(most * _MOST_RATIO, PACKED_BYTES):
        return b""
    compressed = zlib.compress(packed, _LEVEL)
    return compressed if len(compressed) <= most else b""


class Requests:
    """The requests of all batches. `url` is that of Redis, for errors."""

    def __init__(self, client: redis.Redis, spool: Spool, url: str) -> None:
        self._redis = client
        self._spool = spool
        self._url = url

    def of(self, batch: BatchRecord) -> RequestReader:
        """Returns the reader of a batch's requests. Makes no call yet."""
        return self.reader(batch.id, None if batch.gathers else batch.bundle, batch.total)

    def reader(self, batch_id: str, bundle: str | None, total: int) -> RequestReader:
        """As `of`, for a batch of `total` requests; `bundle` is its bundle, None for jobs of its own."""
        if bundle is None:
            return RequestReader(self._spool, batch_id)
        return RequestReader(self._spool, batch_id, partial(self._packed, batch_id, bundle, total))

    def waiting(self, bundle: str, batch_ids: Sequence[str]) -> Iterator[RequestReader]:
        """Yields the readers of the batches of a bundle that has no files yet, in order."""
        for first in range(0, len(batch_ids), _AT_ONCE):
            some = batch_ids[first : first + _AT_ONCE]
            with redis_errors(self._url):
                found = cast("list[bytes | None]", self._redis.hmget(keys.requests(bundle), some))
            for batch_id, compressed in zip(some, found, strict=True):
                packed = None if compressed is None else partial(_unpacked, batch_id, compressed)
                yield RequestReader(self._spool, batch_id, packed)

    def _packed(self, batch_id: str, bundle: str, total: int) -> bytes:
        with redis_errors(self._url), self._redis.pipeline(transaction=False) as pipe:
            pipe.hget(keys.requests(bundle), batch_id)
            pipe.zscore(keys.bundled(bundle), batch_id)
            compressed, first = pipe.execute()
        if compressed is not None:
            return _unpacked(batch_id, compressed)
        with suppress(DamagedBlob):
            return self._spool.read(BatchFiles(batch_id).index)
        if first is None:
            raise DamagedBlob(f"batch {batch_id} is not in its bundle {bundle}: Redis has lost a part of its data")
        return packed_keys(self._spool, batch_id, bundle=bundle, first=int(first), total=total)


def _unpacked(batch_id: str, compressed: bytes) -> bytes:
    """The packed requests of a batch, from the form of the store."""
    unpacking = zlib.decompressobj()
    try:
        packed = unpacking.decompress(compressed, PACKED_BYTES)
    except zlib.error as error:
        raise DamagedBlob(f"the requests of batch {batch_id} in Redis are damaged: {error}") from error
    if not unpacking.eof:
        raise DamagedBlob(f"the requests of batch {batch_id} in Redis are damaged: they are not whole")
    return packed
