"""Callers of the Developer API: they send an API key."""

from __future__ import annotations

from starlette.requests import Request

from lowtide_emulator.calls import check_key, check_version
from lowtide_emulator.settings import Settings


def check_caller(request: Request, settings: Settings) -> None:
    """Refuses a path without an API version and a wrong API key."""
    check_version(request)
    check_key(request, settings)
