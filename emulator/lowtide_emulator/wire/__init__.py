"""The wire format that both APIs share: proto-JSON, and the messages that a row of a job can hold."""

from __future__ import annotations

from lowtide_emulator.wire.messages import (
    EmbedContentRequest,
    GenerateContentRequest,
    RequestChecker,
    VertexGenerateContentRequest,
    explain,
)
from lowtide_emulator.wire.proto_json import either, encode, integer, snake, timestamp

__all__ = [
    "EmbedContentRequest",
    "GenerateContentRequest",
    "RequestChecker",
    "VertexGenerateContentRequest",
    "either",
    "encode",
    "explain",
    "integer",
    "snake",
    "timestamp",
]
