"""Singles: requests that were added one by one, and their tickets.

A single waits in the list of the batch that gathers it, and its place there is its ordinal in that batch. So a ticket
needs no record of its own: it names the batch and the ordinal. It ends with a check, which only the store can compute,
so that no ticket can be guessed from another.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import NamedTuple

import msgspec

from lowtide.protocol.layout import BATCH_ID

_NULL = msgspec.Raw(b"null")
_ORDINAL = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
_CHECK_CHARS = 16


class TicketId(NamedTuple):
    """The parts of a ticket's id, `<batch>.<ordinal>.<check>`."""

    batch_id: str
    ordinal: int
    check: str

    @classmethod
    def parse(cls, text: object) -> TicketId:
        """The parts of an id. Raises `ValueError` for text that is none."""
        if isinstance(text, str) and len(text) < 100:
            batch_id, _, rest = text.partition(".")
            ordinal, _, check = rest.partition(".")
            if BATCH_ID.fullmatch(batch_id) and _ORDINAL.fullmatch(ordinal) and len(check) == _CHECK_CHARS:
                return cls(batch_id, int(ordinal), check)
        raise ValueError(
            f"{text!r:.80} is not a ticket; give the id that add returned or `lowtide ask --no-wait` printed"
        )

    def is_of(self, salt: str) -> bool:
        """Whether the store gave out this ticket; `salt` is that of its batch."""
        return secrets.compare_digest(self.check.encode(), check_of(salt, self.ordinal).encode())

    def __str__(self) -> str:
        return f"{self.batch_id}.{self.ordinal}.{self.check}"


def check_of(salt: str, ordinal: int) -> str:
    """The check of a ticket, as add.lua computes it: Lua has no other hash than SHA-1."""
    digest = hashlib.sha1(f"{salt}{ordinal}".encode(), usedforsecurity=False)
    return digest.hexdigest()[:_CHECK_CHARS]


class WaitingSingle(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A single in the list of its batch, or in a file of the spool."""

    key: str
    """The key of its result; "" for the ticket's id."""
    tokens: int
    """Estimated input tokens."""
    metadata: msgspec.Raw = _NULL
    """The user's metadata as JSON."""
    request: msgspec.Raw = _NULL
    """The request in the provider's form, as JSON."""
    file: str = ""
    """The id of the file with the rest; "" where all is here."""


encode_single = msgspec.json.Encoder().encode
decode_single = msgspec.json.Decoder(WaitingSingle).decode
