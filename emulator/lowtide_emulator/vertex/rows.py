"""Vertex AI's form of rows.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-from-cloud-storage and
https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-from-bigquery
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import msgspec
from msgspec import Raw

from lowtide_emulator.answering import Answerer, Oddity, Reply, RowError
from lowtide_emulator.calls import STATUS_BY_HTTP
from lowtide_emulator.engine import STRAY, Row
from lowtide_emulator.vertex.importer import Column, filled
from lowtide_emulator.wire import RequestChecker

KEY_FIELDS = ("key", "custom_id", "id")
"""The columns that can hold the key of a row; the first one that is present does."""

HTTP_BY_RPC = {
    1: 499,  # CANCELLED
    3: 400,  # INVALID_ARGUMENT
    4: 504,  # DEADLINE_EXCEEDED
    5: 404,  # NOT_FOUND
    6: 409,  # ALREADY_EXISTS
    7: 403,  # PERMISSION_DENIED
    8: 429,  # RESOURCE_EXHAUSTED
    9: 400,  # FAILED_PRECONDITION
    10: 409,  # ABORTED
    11: 400,  # OUT_OF_RANGE
    12: 501,  # UNIMPLEMENTED
    13: 500,  # INTERNAL
    14: 503,  # UNAVAILABLE
    16: 401,  # UNAUTHENTICATED
}
"""HTTP status codes by gRPC codes."""

_EMPTY = Raw(b"{}")
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


class PredictionRow(Row):
    """A row with its other columns, which are not for the model and are returned unchanged."""

    others: dict[str, Raw] = msgspec.field(default_factory=dict)


class PredictionShape:
    """The form of rows in a file of predictions.

    key_field: the column with the key of a row.
    layout: the columns of the importer; None if every row has every column.
    stamp: returns the time of processing.
    """

    def __init__(self, key_field: str, layout: Column | None, stamp: Callable[[], str]) -> None:
        self._key_field = key_field
        self._layout = layout
        self._stamp = stamp

    def decode(self, line: bytes) -> Row:
        """Returns the row of one input line."""
        fields = _decode_fields(line)
        request = fields.pop("request", _EMPTY)
        key: str | None = None
        if (raw := fields.get(self._key_field)) is not None and bytes(raw).startswith(b'"'):
            key = msgspec.json.decode(fields.pop(self._key_field))
        return PredictionRow(request, key, others=fields)

    def stray(self, key: str) -> Row:
        """Returns a row that is not in the input."""
        return PredictionRow(STRAY, key)

    def encode(self, row: Row, reply: Reply) -> bytes:
        """Returns the result line of a row, with its line break."""
        line: dict[str, object] = {"status": _status(reply), "processed_time": self._stamp(), "request": row.request}
        others = row.others if isinstance(row, PredictionRow) else {}
        if self._layout is not None:
            line["request"] = filled(msgspec.json.decode(row.request), self._layout.fields["request"])
        match reply:
            case Oddity(status=None):
                pass
            case RowError() | Oddity():
                line["response"] = {}
            case _:
                line["response"] = reply
        if self._layout is not None:
            line |= {name: None for name in self._layout.fields if name not in line and name != self._key_field}
        line |= others
        if row.key is not None:
            line[self._key_field] = row.key
        return _encode(line) + b"\n"


class CheckedModel:
    """A model that refuses invalid requests, as the service does: in the output, not at creation."""

    def __init__(self, checker: RequestChecker, model: Answerer) -> None:
        self._checker = checker
        self._model = model

    def reply(self, key: str | None, request: Raw) -> Reply:
        """Returns the response to a request, or an error."""
        problem = self._checker.problem(request)
        if problem is not None:
            return RowError(3, problem)
        return self._model.reply(key, request)


def row_name(row: dict[str, object]) -> tuple[str | None, str]:
    """Returns the column with the key of a row, and the key."""
    for field in KEY_FIELDS:
        if field in row:
            return field, str(row[field])
    return None, ""


def _status(reply: Reply) -> str:
    match reply:
        case RowError():
            error = reply
        case Oddity(status=RowError() as status):
            error = status
        case _:
            return ""
    code = HTTP_BY_RPC.get(error.code, 500)
    body: dict[str, object] = {"code": code, "message": error.message, "status": STATUS_BY_HTTP.get(code, "UNKNOWN")}
    if error.details:
        body["details"] = cast("object", error.details)
    return f"{HTTPStatus(code).phrase if code != 499 else 'Client Closed Request'}: {json.dumps({'error': body})}"
