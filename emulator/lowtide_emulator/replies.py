"""What the endpoints share: reading a body, knowing the caller, replying."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from lowtide_emulator.errors import RefusalError
from lowtide_emulator.settings import Settings
from lowtide_emulator.wire import encode

JSON = "application/json; charset=UTF-8"


def json_reply(value: object, headers: dict[str, str] | None = None) -> Response:
    """Return a reply with status 200, the only one the SDK takes for success."""
    return Response(encode(value), media_type=JSON, headers=headers)


def check_caller(request: Request, settings: Settings) -> None:
    """Refuse a wrong API key, and a path without an API version."""
    if not request.path_params["version"].startswith("v1"):
        raise RefusalError(404, f"Unknown API version: {request.path_params['version']}")
    check_key(request, settings)


def check_key(request: Request, settings: Settings) -> None:
    """Refuse a wrong API key."""
    key = request.headers.get("x-goog-api-key") or request.query_params.get("key")
    if settings.api_keys and key not in settings.api_keys:
        raise RefusalError(
            400,
            "API key not valid. Please pass a valid API key.",
            details=[
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "API_KEY_INVALID",
                    "domain": "googleapis.com",
                    "metadata": {"service": "generativelanguage.googleapis.com"},
                }
            ],
        )


def check_vertex_caller(request: Request, settings: Settings) -> None:
    """Refuse a wrong Bearer token or API key, and a path without an API version."""
    if not request.path_params["version"].startswith("v1"):
        raise RefusalError(404, f"Unknown API version: {request.path_params['version']}")
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    key = request.headers.get("x-goog-api-key") or request.query_params.get("key")
    if kind.lower() == "bearer":
        known = not settings.tokens or token in settings.tokens
    elif key:
        known = not settings.api_keys or key in settings.api_keys
    else:
        known = not settings.tokens and not settings.api_keys
    if not known:
        raise RefusalError(
            401,
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other "
            "valid authentication credential.",
        )


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body of a request, which may have at most ``limit`` bytes."""
    too_large = RefusalError(400, f"Request payload size exceeds the limit: {limit} bytes.")
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)
