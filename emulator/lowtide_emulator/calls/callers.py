"""Checks of the caller that both APIs and the control endpoints need."""

from __future__ import annotations

from starlette.requests import Request

from lowtide_emulator.calls.errors import RefusalError
from lowtide_emulator.settings import Settings


def check_version(request: Request) -> None:
    """Refuses a path without an API version."""
    if not request.path_params["version"].startswith("v1"):
        raise RefusalError(404, f"Unknown API version: {request.path_params['version']}")


def api_key(request: Request) -> str | None:
    """Returns the API key of a request: from its header, otherwise from its query."""
    return request.headers.get("x-goog-api-key") or request.query_params.get("key")


def check_key(request: Request, settings: Settings) -> None:
    """Refuses a wrong API key."""
    if settings.api_keys and api_key(request) not in settings.api_keys:
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
