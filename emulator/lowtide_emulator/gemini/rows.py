"""Rows in the Developer API's shapes: lines of a file, and inline rows.

Lines come back with the response first and the key last, as recorded.

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


class _RequestLines:
    """The input of both: lines with a request and, in files, its key."""

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(Row).decode

    def decode(self, line: bytes) -> Row:
        """Return the row that stands in one line of input."""
        return self._decode(line)


class FileShape(_RequestLines):
    """Lines of a results file."""

    def stray(self, key: str) -> Row:
        """Return a row that nobody asked for."""
        return Row(STRAY, key)

    def encode(self, row: Row, reply: Reply) -> bytes:
        """Return one line, with its line break."""
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
    """Members of ``inlinedResponses``, kept one a line."""

    def stray(self, key: str) -> Row:
        """Return a row that nobody asked for."""
        return Row(STRAY, metadata=Raw(msgspec.json.encode({"key": key})))

    def encode(self, row: Row, reply: Reply) -> bytes:
        """Return one member, followed by a line break."""
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
