"""The keys of a small batch, read from the files of the bundle that carries its requests."""

from __future__ import annotations

import msgspec

from lowtide.protocol import BatchFiles, WireKeys
from lowtide.spool.blobs import DamagedBlob, Spool
from lowtide.spool.format import ENTRY, Content, KeyLine, packed
from lowtide.spool.reader import RequestReader

_encode = msgspec.json.Encoder().encode


def packed_keys(spool: Spool, batch_id: str, *, bundle: str, first: int, total: int) -> bytes:
    """Returns the one blob of a small batch without its lines, which nothing reads once the bundle has them.

    - `bundle`: the id of its bundle, whose files are written.
    - `first`: the ordinal of its first request there.
    - `total`: the number of its requests.

    Raises `DamagedBlob` where the bundle does not have these requests, and `SpoolError`.
    """
    reader = RequestReader(spool, bundle)
    requests = reader.keys(range(first, first + total))
    wire_key = WireKeys(batch_id).of
    keys, index, tokens = bytearray(), bytearray(), 0
    for ordinal, (line, (_, estimated)) in enumerate(
        zip(requests.values(), reader.sizes(first, first + total), strict=True)
    ):
        # The requests were lost before the bundle was written, and have no keys; or Redis went back in time, and the
        # bundle will be written once more.
        if not line.key or line.wire != wire_key(first + ordinal, line.key):
            raise DamagedBlob(f"{BatchFiles(bundle).keys} does not have the requests of batch {batch_id}")
        index += ENTRY.pack(0, len(keys), tokens)
        keys += _encode(KeyLine(wire_key(ordinal, line.key), line.key, line.metadata)) + b"\n"
        tokens += estimated
    index += ENTRY.pack(0, len(keys), tokens)
    return packed({Content.INDEX: index, Content.KEYS: keys, Content.GROUPS: b"", Content.LINES: b""})
