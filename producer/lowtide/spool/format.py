"""The blobs that hold the accepted requests of a batch.

The contents are: the provider's lines; the keys with the users' metadata; an index; and the groups, a byte for each
request, where not all may share a job. The index has an `ENTRY` for each request, and one more at the
end; or as many of `WIDE_ENTRY`, where the requests are under a budget.

`index.bin` is always there. It begins with a header, and the index follows. The contents of a small batch are all in
this one blob, in the order of the header's sizes, because an object store takes its time and its money by the call. A
large batch is written while it is read, so that its lines, keys and groups are blobs of their own, and the sizes in the
header are 0.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple, Self

import msgspec

from lowtide.spool.blobs import DamagedBlob

ENTRY = struct.Struct("<QQQ")
"""An entry of the index: the sums over all requests before this one, which are where its line and its key line begin,
in bytes, and the estimated input tokens before it."""
WIDE_ENTRY = struct.Struct("<QQQQ")
"""An entry of the index of requests under a budget: also the most output tokens before this one."""
PACKED_BYTES = 1 << 20
"""A batch with more bytes of lines and keys is not packed."""

_MAGIC, _WIDE_MAGIC = b"lowtide\x03", b"lowtide\x04"
"""The last byte is the version of the format: 4 has wide entries."""
_HEADER = struct.Struct("<8s4Q")
HEADER_BYTES = _HEADER.size
_MOST_BYTES = 1 << 40
"""A larger size is damage. One request may be as large as a job."""


class Content(IntEnum):
    """The contents, in the order of their sizes in the header."""

    INDEX = 0
    KEYS = 1
    GROUPS = 2
    LINES = 3


class Header(NamedTuple):
    """The beginning of `index.bin`."""

    sizes: tuple[int, ...] = (0,) * len(Content)
    """The sizes in bytes of what is packed there, by `Content`; all 0 where only the index is."""
    wide: bool = False
    """Whether the index counts output tokens too."""

    @classmethod
    def read(cls, data: bytes, name: str) -> Self:
        """Reads the header of the blob `name`. Raises `DamagedBlob` for one of another version, or none."""
        if len(data) < _HEADER.size:
            raise DamagedBlob(f"{name} ends at byte {len(data)}, within its header; restore it from a backup")
        magic, *sizes = _HEADER.unpack_from(data)
        if magic not in (_MAGIC, _WIDE_MAGIC) or max(sizes) > _MOST_BYTES:
            raise DamagedBlob(
                f"{name} is damaged, or another version of Lowtide wrote it; restore it from a backup, or finish its "
                "batch with that version"
            )
        return cls(tuple(sizes), magic == _WIDE_MAGIC)

    @property
    def entry(self) -> struct.Struct:
        """The form of the index's entries."""
        return WIDE_ENTRY if self.wide else ENTRY

    @property
    def packed(self) -> bool:
        """Whether all contents are in this blob."""
        return any(self.sizes)

    @property
    def end(self) -> int:
        """The size of the whole blob in bytes, where it is packed."""
        return _HEADER.size + sum(self.sizes)

    def span(self, content: Content) -> tuple[int, int]:
        """Returns the bytes [start, end) of a packed content in the blob."""
        start = _HEADER.size + sum(self.sizes[:content])
        return start, start + self.sizes[content]

    def encoded(self) -> bytes:
        """Returns the header as it is stored."""
        return _HEADER.pack(_WIDE_MAGIC if self.wide else _MAGIC, *self.sizes)


def packed(contents: Mapping[Content, bytes | bytearray], *, wide: bool = False) -> bytes:
    """Returns the one blob of a small batch."""
    in_order = [contents[content] for content in Content]
    return b"".join((Header(tuple(map(len, in_order)), wide).encoded(), *in_order))


class KeyLine(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A line of the keys: a request's wire key, the user's key, and the metadata."""

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
    output_tokens: int | None = None
    """Most output tokens of all requests together, an assumption where a request names none; None: not counted."""
    least_cost: int = 0
    """Estimated cost of the cheapest request, in nano-dollars, where the output tokens are counted."""
    most_cost: int = 0
    """That of the dearest request."""


key_decoder = msgspec.json.Decoder(KeyLine)
decode_key = key_decoder.decode
