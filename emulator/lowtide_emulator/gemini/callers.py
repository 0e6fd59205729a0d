"""Callers of the Developer API: they send an API key."""

from __future__ import annotations

from starlette.requests import Request

from lowtide_emulator.calls import RefusalError, check_key, check_version
from lowtide_emulator.settings import Settings


def check_caller(request: Request, settings: Settings) -> None:
    """Refuses a path without an API version and a wrong API key."""
    check_version(request)
    check_key(request, settings)


def check_token(request: Request, settings: Settings) -> None:
    """Refuses a call that needs an OAuth token and has none, or a wrong one."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token or (settings.tokens and token not in settings.tokens):
        raise RefusalError(401, "Request is missing a valid OAuth 2 access token for Cloud Storage.")
