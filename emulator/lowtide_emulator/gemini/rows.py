"""The Developer API's forms of rows: lines of a file, and inline rows.

The response is the first field of a line and the key the last, as recorded from the service.

Source: https://ai.google.dev/gemini-api/docs/batch-api
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from lowtide_emulator.answering import Oddity, Reply, RowError
from lowtide_emulator.engine import STRAY, Row


class _ResponseLine(msgspec.Struct, omit_defaults=True, gc=False):
    response: Reply
    key: str | None = None


class _ErrorLine(msgspec.Struct, omit_defaults=True, gc=False):
    error: RowError
    key: str | None = None


class _OddLine(msgspec.Struct, omit_defaults=True, gc=False):
    status: RowError | None = None
    key: str | None = None


_decode = msgspec.json.Decoder(Row).decode


class _RequestLines:
    """The input of both forms: lines with a request and, in files, its key."""

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode

    def decode(self, line: bytes) -> Row:
        """Returns the row of one input line."""
        return _decode(line)


class FileShape(_RequestLines):
    """The form of rows in files."""

    def stray(self, key: str) -> Row:
        """Returns a row that is not in the input."""
        return Row(STRAY, key)

    def encode(self, row: Row, reply: Reply) -> bytes:
        """Returns the result line of a row, with its line break."""
        line: msgspec.Struct
        match reply:
            case RowError():
                line = _ErrorLine(reply, row.key)
            case Oddity():
                line = _OddLine(reply.status, row.key)
            case _:
                line = _ResponseLine(reply, row.key)
        return self._encode(line) + b"\n"


class _InlineResponse(msgspec.Struct, omit_defaults=True, gc=False):
    response: Reply
    metadata: Raw | None = None


class _InlineError(msgspec.Struct, omit_defaults=True, gc=False):
    error: RowError
    metadata: Raw | None = None


class _InlineOddity(msgspec.Struct, omit_defaults=True, gc=False):
    status: RowError | None = None
    metadata: Raw | None = None


class InlineShape(_RequestLines):
    """The form of inline rows: members of `inlinedResponses`, one per line."""

    def stray(self, key: str) -> Row:
        """Returns a row that is not in the input."""
        return Row(STRAY, metadata=Raw(msgspec.json.encode({"key": key})))

    def encode(self, row: Row, reply: Reply) -> bytes:
        """Returns the member of a row, with a line break."""
        metadata = row.metadata if bytes(row.metadata) else None
        line: msgspec.Struct
        match reply:
            case RowError():
                line = _InlineError(reply, metadata)
            case Oddity():
                line = _InlineOddity(reply.status, metadata)
            case _:
                line = _InlineResponse(reply, metadata)
        return self._encode(line) + b"\n"
