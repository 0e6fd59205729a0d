"""Refusals, in the error envelope of Google's APIs.

Source: https://google.aip.dev/193
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.responses import Response

from lowtide_emulator.wire import encode

STATUS_BY_HTTP = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ALREADY_EXISTS",
    416: "OUT_OF_RANGE",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """The value of `error` in the body of a refusal."""

    code: int
    message: str
    status: str
    details: Sequence[dict[str, object]] = ()


class RefusalError(Exception):
    """A call that the service refuses.

    code: the HTTP status.
    message: the text for the caller.
    status: the canonical name; by default the usual one of the code.
    details: messages of `google.rpc`.
    """

    def __init__(
        self,
        code: int,
        message: str,
        status: str | None = None,
        details: Sequence[dict[str, object]] = (),
    ) -> None:
        super().__init__(message)
        self.body = ErrorBody(
            code=code,
            message=message,
            status=status or STATUS_BY_HTTP.get(code, "UNKNOWN"),
            details=details,
        )

    def response(self) -> Response:
        """Returns the reply for the caller."""
        return Response(
            encode({"error": self.body}),
            status_code=self.body.code,
            media_type="application/json; charset=UTF-8",
        )
