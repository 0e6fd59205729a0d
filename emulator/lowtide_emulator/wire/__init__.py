"""The wire format that both APIs share: proto-JSON, and the messages that a row of a job can hold."""

from __future__ import annotations

from lowtide_emulator.wire.checking import DEVELOPER_TYPES, TOO_DEEP, VERTEX_TYPES, ApiTypes, RequestChecker, WireError
from lowtide_emulator.wire.proto_json import either, encode, explain, integer, snake, timestamp

__all__ = [
    "DEVELOPER_TYPES",
    "TOO_DEEP",
    "VERTEX_TYPES",
    "ApiTypes",
    "RequestChecker",
    "WireError",
    "either",
    "encode",
    "explain",
    "integer",
    "snake",
    "timestamp",
]
