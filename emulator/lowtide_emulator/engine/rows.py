"""One row of a job on its way in and out, and the protocol for the shapes that the APIs give to rows."""

from __future__ import annotations

from typing import Protocol

import msgspec
from msgspec import Raw

from lowtide_emulator.answering import Reply

ABSENT = Raw()

_decode_metadata = msgspec.json.Decoder(dict[str, object] | None).decode


class Row(msgspec.Struct, gc=False):
    """A row of the input; in a file it has a key, inline it has metadata."""

    request: Raw
    key: str | None = None
    metadata: Raw = ABSENT

    @property
    def name(self) -> str | None:
        """The key, wherever it stands; None if the row has none."""
        if self.key is not None or not bytes(self.metadata):
            return self.key
        found = _decode_metadata(self.metadata)
        key = None if found is None else found.get("key")
        return None if key is None else str(key)


STRAY = Raw(b'{"contents":[{"parts":[{"text":"A row of somebody else"}]}]}')
"""The request of a row that nobody asked for."""


class RowShape(Protocol):
    """How rows look in one kind of job."""

    def decode(self, line: bytes) -> Row:
        """Return the row that stands in one line of input."""
        ...

    def stray(self, key: str) -> Row:
        """Return a row that nobody asked for."""
        ...

    def encode(self, row: Row, reply: Reply) -> bytes:
        """Return one line of results."""
        ...
