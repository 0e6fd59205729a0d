"""Bodies of calls and replies."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from lowtide_emulator.calls.errors import RefusalError
from lowtide_emulator.wire import encode

JSON = "application/json; charset=UTF-8"


def json_reply(value: object, headers: dict[str, str] | None = None) -> Response:
    """Returns a reply with status 200, the only status that the SDK treats as success."""
    return Response(encode(value), media_type=JSON, headers=headers)


async def read_body(request: Request, limit: int) -> bytes:
    """Returns the body of a request.

    limit: the most bytes that the body may have; RefusalError if it has more.
    """
    too_large = RefusalError(400, f"Request payload size exceeds the limit: {limit} bytes.")
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)
