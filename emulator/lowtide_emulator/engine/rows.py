"""The row of a job, and the protocol for the forms that the APIs give to rows."""

from __future__ import annotations

from typing import Protocol

import msgspec
from msgspec import Raw

from lowtide_emulator.answering import Reply

ABSENT = Raw()

_decode_metadata = msgspec.json.Decoder(dict[str, object] | None).decode


class Row(msgspec.Struct, gc=False):
    """A row of the input. A row in a file has a key, an inline row has metadata."""

    request: Raw
    key: str | None = None
    metadata: Raw = ABSENT

    @property
    def name(self) -> str | None:
        """The key, from the row itself or from its metadata; None if it has none."""
        if self.key is not None or not bytes(self.metadata):
            return self.key
        found = _decode_metadata(self.metadata)
        key = None if found is None else found.get("key")
        return None if key is None else str(key)


STRAY = Raw(b'{"contents":[{"parts":[{"text":"A row of somebody else"}]}]}')
"""The request of a row that is not in the input."""


class RowShape(Protocol):
    """The form of rows in one kind of job."""

    def decode(self, line: bytes) -> Row:
        """Returns the row of one input line."""
        ...

    def stray(self, key: str) -> Row:
        """Returns a row that is not in the input."""
        ...

    def encode(self, row: Row, reply: Reply) -> bytes:
        """Returns the result line of a row."""
        ...
