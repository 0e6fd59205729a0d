"""Callers of Vertex AI: they send a Bearer token, or an API key."""

from __future__ import annotations

from starlette.requests import Request

from lowtide_emulator.calls import RefusalError, api_key, check_version
from lowtide_emulator.settings import Settings


def check_caller(request: Request, settings: Settings) -> None:
    """Refuses a path without an API version, and a wrong Bearer token or API key."""
    check_version(request)
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    key = api_key(request)
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
